"""Decoding with shapes that never change: the same tensors for every token of every batch of a size.

The eager step sees just as many keys as the open segment holds; this one sees the whole buffer and masks the rest, so its
layers can be compiled once, and all of it can be recorded as a CUDA graph and replayed without the host's work. Segments
that are full are flushed to the memory outside of it, when the host, which knows all lengths, says so.

Legend: B batch, T = 1, S places of the open segment's buffer, V vocabulary.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable

import torch

from infini_eval.config import ModelSettings
from infini_eval.errors import BackendError, ConfigError
from infini_eval.models.attention import flush_to_memory
from infini_eval.models.llama import Llama
from infini_eval.models.state import BatchState, Step, WindowStep

Recorder = Callable[[Callable[[], torch.Tensor]], Callable[[], torch.Tensor]]
PLAIN_CAPACITY = (
    256  # places of a model without segments are rounded up to a multiple of this, so that batches share a step
)


class FixedDecode:
    """The state of `rows` sequences at fixed addresses, and the step that moves all of them on by one token."""

    def __init__(self, llama: Llama, rows: int, longest: int, record: Recorder) -> None:
        """`record` turns the step into what runs in its place."""
        self._llama, self.rows = llama, rows
        self._state = llama.new_state(rows, longest, step_tokens=1)
        for layer in self._state.layers:
            layer.open_segment()
        self.capacity = self._state.capacity
        self._tokens_B1 = torch.zeros(rows, 1, dtype=torch.int64, device=llama.device)
        self._positions_B1 = torch.zeros_like(self._tokens_B1)
        self._has_memory_B = torch.zeros(rows, dtype=torch.bool, device=llama.device)
        self._places_S = torch.arange(self.capacity, device=llama.device)
        self._run = record(self._step)

    def load_state(self, state: BatchState) -> None:
        """Continue from `state`, whose sequences are copied to the fixed addresses."""
        cursor = state.cursor
        self._positions_B1.copy_(self._column(cursor.open_lengths))
        for ours, theirs in zip(self._state.layers, state.layers, strict=True):
            ours.copy_from(theirs, self._positions_B1[:, 0])
        self._state.cursor = cursor
        self._has_memory_B.copy_(self._column([done > 0 for done in cursor.segments])[:, 0])

    def next_logits(self, tokens_B: torch.Tensor) -> torch.Tensor:
        """Compute the logits [B, V] fp32 that follow `tokens_B`; they are overwritten by the next call."""
        self._tokens_B1.copy_(tokens_B[:, None])
        logits_BV = self._run()
        closing = self._state.cursor.advance()
        if closing:
            self._close(closing)
        return logits_BV

    def _step(self) -> torch.Tensor:
        mask_B11S = (self._places_S <= self._positions_B1)[:, None, None]
        step = Step(
            segments=0,
            positions=self._positions_B1,
            has_memory=self._has_memory_B,
            span=self.capacity,
            mask=mask_B11S,
            causal=False,
            offset=None,
            lengths=(self._positions_B1[:, 0] + 1).int(),
            recurs=True,
            window=self._window_step(),
        )
        x_B1D = self._llama.run_layers(self._llama.embed(self._tokens_B1), self._state, step)
        logits_BV = self._llama.logits(x_B1D[:, -1])
        self._positions_B1.add_(1)
        return logits_BV

    def _window_step(self) -> WindowStep | None:
        window = next((layer.window for layer in self._state.layers if layer.window is not None), None)
        if window is None:
            return None
        positions_B1 = self._positions_B1
        mask = window.visible(positions_B1, positions_B1, window.ring)
        return WindowStep(window, positions_B1 % window.ring, window.ring, mask)

    def _close(self, rows: list[int]) -> None:
        """The open segments of `rows` are full: flush them to the memory, and start new ones."""
        index = torch.tensor(rows, device=self._llama.device)
        if self._llama.settings.keeps_memory:
            for layer in self._state.layers:
                flush_to_memory(layer, index, self._has_memory_B[index], self._llama.settings.features)
        self._positions_B1[index] = 0
        self._has_memory_B[index] = True

    def _column(self, values: list[int] | list[bool]) -> torch.Tensor:
        return torch.tensor(values, device=self._llama.device)[:, None]


class FixedDecoders:
    """The fixed step of the batch size in use; another size takes its place, since batches of a size follow each other."""

    def __init__(self, llama: Llama, record: Recorder) -> None:
        self._llama, self._record = llama, record
        self._latest: FixedDecode | None = None

    def step_for(self, state: BatchState, longest: int) -> FixedDecode:
        """Find or make the step for the rows of `state`, which it takes over; sequences have at most `longest` tokens."""
        rows, step = state.cursor.batch, self._latest
        if step is None or step.rows != rows or step.capacity < state.capacity:
            self._latest = step = None  # what it holds goes before the new one comes
            longest = -(-longest // PLAIN_CAPACITY) * PLAIN_CAPACITY
            self._latest = step = FixedDecode(self._llama, rows, longest, self._record)
        step.load_state(state)
        return step


def run_eagerly(step: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    """Leave the step as it is, run operation by operation."""
    return step


def record_graph(step: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    """Record the step as a CUDA graph; what it returns lies at one address. The state it is recorded with is spoilt."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):  # kernels choose their workspaces before the recording
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    # other threads may use CUDA meanwhile
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        output = step()

    def replay() -> torch.Tensor:
        graph.replay()
        return output

    return replay


def accelerate(llama: Llama, stages: int, *, compile: bool, cuda_graphs: bool) -> FixedDecoders | None:
    """Compile the model's layers where asked for, and make the decode steps of fixed shapes; None where decoding stays eager.

    With pipeline stages the chunks of the prefill are compiled and decoding stays as it is: several batches are under way.
    """
    if compile:
        llama.compile()
    if stages > 1 or not (compile or cuda_graphs):
        return None
    return FixedDecoders(llama, record_graph if cuda_graphs else run_eagerly)


def check_acceleration(settings: ModelSettings, device: torch.device, tp: int, pp: int) -> None:
    """Refuse, before anything is loaded, a setting that cannot work here.

    Raises:
        ConfigError: CUDA graphs on a CPU, or with communication inside the step.
        BackendError: there is no compiler for --compile.
    """
    if settings.cuda_graphs and device.type != "cuda":
        raise ConfigError("--cuda-graphs on a CPU", valid="--device cuda", next_step="leave --cuda-graphs out")
    if settings.cuda_graphs and tp * pp > 1:
        raise ConfigError(
            f"--cuda-graphs with tp={tp} pp={pp}: a recorded step holds no communication",
            valid="--tp 1 --pp 1, with any --dp",
            next_step="leave --cuda-graphs out",
        )
    if settings.compile:
        _check_compiler(device)


def _check_compiler(device: torch.device) -> None:
    if device.type == "cuda":
        if importlib.util.find_spec("triton") is None:
            raise BackendError(
                "--compile needs the package triton, which is not installed", next_step="pip install triton"
            )
    elif shutil.which(os.environ.get("CXX", "g++")) is None:
        raise BackendError(
            f"--compile needs a C++ compiler; there is no {os.environ.get('CXX', 'g++')}",
            valid="g++, or another one named by CXX",
            next_step="install one, or leave --compile out",
        )
