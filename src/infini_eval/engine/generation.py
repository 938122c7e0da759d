"""Answering batches at one pipeline stage: prefill steps, then one token at a time, as units that stages interleave.

`BatchGeneration` is one batch on its way; `Links` carries activations forwards and drawn tokens back; `run_pipeline` keeps
every stage busy with several batches, one unit of each in turn, in an order that all stages share. A prefill chunk needs
no answer from the later stages, so one long prompt alone fills the pipeline: stage 0 computes chunk i + 1 while stage 1
computes chunk i. A decode step needs the token of the one before, so decoding fills it when as many batches are in
flight as there are stages. One stage is the same loop without anything to send.

Legend: B batch, T tokens, D model width, V vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

import numpy as np
import torch
import torch.distributed as dist

from infini_eval.engine.batching import PrefillStep, plan_prefill
from infini_eval.engine.fixed_decode import FixedDecode, FixedDecoders
from infini_eval.engine.prefix_sharing import Prefixes, SharedPrefill, reused_tokens
from infini_eval.engine.sampling import Sampler
from infini_eval.models.llama import Llama
from infini_eval.models.state import Step

BAD_LOGITS = -1  # in place of a token: the row's logits were NaN or infinite
ON_DEVICES = 1  # steps that a device computes before the host has read what the first of them drew


@dataclass(frozen=True)
class Limits:
    """When an answer ends: at one of the `stop_ids`, or after `max_new_tokens`."""

    max_new_tokens: int
    stop_ids: frozenset[int] = frozenset()


Finish = Literal["stop", "length", "settled", "bad_logits"]
EarlyStop = Callable[[int, Sequence[int]], bool]  # row of the batch, its new tokens: whether the answer may end here
Key = TypeVar("Key")


@dataclass
class Completion:
    """The new tokens of one row (a stop token is not among them), and why they ended: stop, length, settled or bad_logits.

    reused_tokens: those of its prompt that were computed for another row.
    """

    token_ids: list[int] = field(default_factory=list)
    finish: Finish | None = None
    reused_tokens: int = 0


class SampledTokenQueue:
    """Tokens on their way to the host, which reads them a step later, so that a device never waits for the host.

    Newest last; at most `lag` steps are unread while more are to come.
    """

    def __init__(self, lag: int) -> None:
        self._lag = lag
        self._unread: deque[tuple[torch.Tensor, torch.cuda.Event | None]] = deque()

    def put(self, tokens_B: torch.Tensor) -> None:
        """Begin to copy a step's tokens to the host."""
        if tokens_B.device.type != "cuda":
            self._unread.append((tokens_B, None))
            return
        host_B = torch.empty(tokens_B.shape, dtype=tokens_B.dtype, pin_memory=True)
        host_B.copy_(tokens_B, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()
        self._unread.append((host_B, copied))

    def read(self, *, everything: bool) -> list[list[int]]:
        """Take the tokens of the steps that need not, or must not, wait any longer; oldest first."""
        steps = []
        while len(self._unread) > (0 if everything else self._lag):
            tokens_B, copied = self._unread.popleft()
            if copied is not None:
                copied.synchronize()
            steps.append(tokens_B.tolist())
        return steps


@dataclass
class Links:
    """This stage's place in the pipeline. `ranks` are the global ranks of the stages with our tp rank, in order.

    Plain isend and recv. Tokens have a gloo group of their own: they are needed on the host, and on one NCCL
    communicator a pending activation and a token going the other way would wait for each other.
    """

    stage: int = 0
    stages: int = 1
    ranks: tuple[int, ...] = (0,)
    activation_group: dist.ProcessGroup | None = None
    token_group: dist.ProcessGroup | None = None
    _pending: deque[tuple[dist.Work, torch.Tensor]] = field(default_factory=deque)

    @property
    def first(self) -> bool:
        """Whether this stage embeds."""
        return self.stage == 0

    @property
    def last(self) -> bool:
        """Whether this stage has the head and draws the tokens."""
        return self.stage == self.stages - 1

    def receive_activation(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """Wait for the activations of the stage before."""
        x = torch.empty(shape, dtype=dtype, device=device)
        dist.recv(x, src=self.ranks[self.stage - 1], group=self.activation_group)
        return x

    def send_activation(self, x: torch.Tensor) -> None:
        """Send activations to the next stage, without waiting."""
        self._send(x.contiguous(), self.ranks[self.stage + 1], self.activation_group)

    def share_tokens(self, tokens_B: torch.Tensor) -> None:
        """Give the drawn tokens to the other stages; for the last one."""
        for rank in self.ranks[:-1]:
            self._send(tokens_B, rank, self.token_group)

    def receive_tokens(self, batch: int) -> torch.Tensor:
        """Wait for the tokens that the last stage drew: [B] int64 on the host."""
        tokens_B = torch.empty(batch, dtype=torch.int64)
        dist.recv(tokens_B, src=self.ranks[-1], group=self.token_group)
        return tokens_B

    def share_from_last(self, tensor: torch.Tensor) -> torch.Tensor:
        """Broadcast a host tensor of known shape from the last stage (checks only; blocks)."""
        if self.stages > 1:
            dist.broadcast(tensor, src=self.ranks[-1], group=self.token_group)
        return tensor

    def apart(self) -> Links:
        """The same place with nothing pending, for work that is begun and ended while other work is under way."""
        return replace(self, _pending=deque())

    def flush(self) -> None:
        """Wait until everything that was sent has left."""
        while self._pending:
            self._pending.popleft()[0].wait()

    def _send(self, tensor: torch.Tensor, rank: int, group: dist.ProcessGroup | None) -> None:
        # the tensor must outlive its sending, so it is kept beside the handle
        while self._pending and self._pending[0][0].is_completed():
            self._pending.popleft()
        work = dist.isend(tensor, dst=rank, group=group)
        assert work is not None, "only ranks of the group send"
        self._pending.append((work, tensor))


class BatchGeneration:
    """A batch of prompts at one stage. `run_unit` does the next unit of work; `absorb` takes the tokens it led to.

    All stages make the same units in the same order, since they know the same lengths and the same tokens; so
    `early_stop` must depend on nothing else.
    """

    def __init__(
        self,
        llama: Llama,
        links: Links,
        sampler: Sampler,
        prompts: Sequence[np.ndarray],
        limits: Limits,
        chunk_tokens: int | Callable[[int], int],
        prefixes: Prefixes | None = None,
        early_stop: EarlyStop | None = None,
        decoders: FixedDecoders | None = None,
    ) -> None:
        """Plan the prefill and allocate the state.

        Args:
            prompts: token ids [T] of each row.
            chunk_tokens: tokens of each row in a prefill step, or what gives them for a number of rows.
            prefixes: what rows share with one another and with earlier batches; None to read each row for itself.
            early_stop: whether a row's answer may end before its limits.
            decoders: steps of fixed shapes to decode with, which one generation at a time may use.
        """
        self._llama, self._links, self._sampler, self._limits = llama, links, sampler, limits
        self._early_stop = early_stop
        self._decoders = decoders
        self._fixed: FixedDecode | None = None
        self._prompts = prompts
        lengths = [len(prompt) for prompt in prompts]
        length = llama.settings.segment_length
        self._shared = SharedPrefill(prefixes, lengths, length) if prefixes is not None and length else None
        shared = None if self._shared is None else self._shared.spans
        self._steps = plan_prefill(lengths, length, chunk_tokens, shared)
        self._next_step = 0
        longest, step_tokens = max(lengths) + limits.max_new_tokens, max(step.tokens for step in self._steps)
        self._state = llama.new_state(len(self._steps[0].rows), longest, step_tokens)
        self._last_BD: torch.Tensor | None = None  # hidden state of each row's last prompt token (last stage)
        self._own_tokens: torch.Tensor | None = None  # drawn here (last stage), not yet absorbed
        # other stages wait for the host to send them the tokens, so that it cannot be late there
        self._sampled = SampledTokenQueue(ON_DEVICES if llama.device.type == "cuda" and links.stages == 1 else 0)
        self._steps_sampled = 0
        self.completions = [Completion(reused_tokens=reused) for reused in reused_tokens(self._steps, lengths)]
        self.awaits_tokens = False
        self._current_B: torch.Tensor | None = None

    @property
    def finished(self) -> bool:
        """Whether every row's answer has ended."""
        return all(completion.finish for completion in self.completions)

    def run_unit(self) -> int:
        """Compute the next prefill step or decode step at this stage; returns its number of tokens (all rows)."""
        if self._next_step < len(self._steps):
            return self._prefill(self._steps[self._next_step])
        return self._decode_one_token()

    def absorb(self) -> None:
        """Take the tokens that the last unit led to: from this stage if it is the last, else from there."""
        if self._own_tokens is not None:
            tokens_B, self._own_tokens = self._own_tokens, None
        else:
            tokens_B = self._links.receive_tokens(len(self._prompts))
        self.awaits_tokens = False
        self._current_B = tokens_B
        self._steps_sampled += 1
        self._sampled.put(tokens_B)
        for tokens in self._sampled.read(everything=self._steps_sampled == self._limits.max_new_tokens):
            for row, token in enumerate(tokens):
                self._append(row, token)

    def _append(self, row: int, token: int) -> None:
        completion = self.completions[row]
        if completion.finish is not None:
            return
        if token == BAD_LOGITS:
            completion.finish = "bad_logits"
        elif token in self._limits.stop_ids:
            completion.finish = "stop"
        else:
            completion.token_ids.append(token)
            if len(completion.token_ids) == self._limits.max_new_tokens:
                completion.finish = "length"
            elif self._early_stop is not None and self._early_stop(row, completion.token_ids):
                completion.finish = "settled"

    def _prefill(self, plan: PrefillStep) -> int:
        if self._shared is not None:
            self._shared.before(plan, self._state)
        cursor = self._state.cursor
        step = cursor.step_segments(plan.segments) if plan.segments else cursor.step_tail(plan.tokens, plan.counts)
        x_BTD = self._stage_input(lambda: self._prompt_tokens(plan), plan.tokens)
        if self._links.last:
            self._read_prompts(x_BTD, plan, step)
        else:
            self._links.send_activation(self._llama.run_layers(x_BTD, self._state, step))
        self._next_step += 1
        if self._shared is not None:
            self._shared.after(plan, self._state)
        if self._next_step == len(self._steps):
            self._end_prefill()
        return sum(plan.counts)

    def _end_prefill(self) -> None:
        if self._shared is not None:
            self._shared.expand_rows(self._state)
        self._draw(self._last_BD)
        if self._decoders is not None:
            longest = max(map(len, self._prompts)) + self._limits.max_new_tokens
            self._fixed = self._decoders.step_for(self._state, longest)

    def _decode_one_token(self) -> int:
        assert self._current_B is not None
        tokens_B = self._current_B.clamp(min=0)
        if self._fixed is not None:
            self.awaits_tokens = True
            self._draw_from(self._fixed.next_logits(tokens_B))
        else:
            x_B1D = self._through_layers(lambda: tokens_B[:, None], 1, self._state.cursor.step_tail(1))
            self._draw(x_B1D[:, -1])
        return len(self._prompts)

    def _through_layers(self, token_ids: Callable[[], torch.Tensor], tokens: int, step: Step) -> torch.Tensor:
        x_BTD = self._llama.run_layers(self._stage_input(token_ids, tokens), self._state, step)
        if not self._links.last:
            self._links.send_activation(x_BTD)
        return x_BTD

    def _stage_input(self, token_ids: Callable[[], torch.Tensor], tokens: int) -> torch.Tensor:
        llama = self._llama
        if self._links.first:
            return llama.embed(token_ids().to(llama.device))
        shape = (self._state.cursor.batch, tokens, llama.config.hidden_size)
        return self._links.receive_activation(shape, llama.dtype, llama.device)

    def _prompt_tokens(self, plan: PrefillStep) -> torch.Tensor:
        """The step's tokens of every row [B, T] int64, zeros on the right where a prompt has ended."""
        ids = np.zeros((len(plan.rows), plan.tokens), dtype=np.int64)
        for row, (prompt, count) in enumerate(zip(plan.rows, plan.counts, strict=True)):
            ids[row, :count] = self._prompts[prompt][plan.start : plan.start + count]
        return torch.from_numpy(ids)

    def _read_prompts(self, x_BTD: torch.Tensor, plan: PrefillStep, step: Step) -> None:
        """Last stage: the step's layers, and the hidden states of the prompts that end in it."""
        end_B = None
        if plan.ending:
            end_B = torch.tensor([max(0, count - 1) for count in plan.counts], device=self._llama.device)
        hidden_BD = self._llama.run_layers_to_ends(x_BTD, self._state, step, end_B)
        if hidden_BD is None:
            return
        if self._last_BD is None:
            self._last_BD = hidden_BD.new_zeros(len(self._prompts), hidden_BD.shape[1])
        for prompt in plan.ending:
            row = plan.row_of_prompt[prompt]
            assert row is not None
            self._last_BD[prompt] = hidden_BD[row]

    def _draw(self, hidden_BD: torch.Tensor | None) -> None:
        """Last stage: draw the next tokens and give them to the other stages; the others will wait for them."""
        self.awaits_tokens = True
        if self._links.last:
            assert hidden_BD is not None
            self._draw_from(self._llama.logits(hidden_BD))

    def _draw_from(self, logits_BV: torch.Tensor) -> None:
        tokens_B = self._sampler.next_tokens(logits_BV)
        bad_B = self._llama.tp.any(~torch.isfinite(logits_BV).all(dim=-1))
        self._own_tokens = torch.where(bad_B, BAD_LOGITS, tokens_B)
        if self._links.stages > 1:
            self._own_tokens = self._own_tokens.cpu()
            self._links.share_tokens(self._own_tokens)


def run_pipeline(
    work: Iterator[tuple[Key, BatchGeneration]], links: Links, on_tokens: Callable[[int], None] | None = None
) -> Iterator[tuple[Key, list[Completion]]]:
    """Run the generations that `work` yields and yield each one's completions when it ends.

    Args:
        work: the same on every stage.
        on_tokens: called with the number of tokens of each unit, for progress.
    """
    slots: list[tuple[Key, BatchGeneration]] = []
    exhausted = False
    while True:
        while not exhausted and len(slots) < links.stages:
            item = next(work, None)
            exhausted = item is None
            if item is not None:
                slots.append(item)
        if not slots:
            break
        key, generation = slots.pop(0)
        if generation.awaits_tokens:
            generation.absorb()
        if generation.finished:
            yield key, generation.completions
            continue
        tokens = generation.run_unit()
        if on_tokens is not None:
            on_tokens(tokens)
        slots.append((key, generation))
    links.flush()
