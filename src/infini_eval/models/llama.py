"""The layers of an Infini-Attention Llama, a plain one or a dense Qwen2, cut for tensor and pipeline parallelism, run by steps.

Legend: B batch, T tokens, D model width, N query heads, G kv heads, H head width, V vocabulary; local to a tp rank.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from infini_eval.config import ModelConfig
from infini_eval.distributed.tensor_parallel import TensorParallel
from infini_eval.models.attention import AttentionSettings, RotaryTable, absorb, attend, attend_at_ends
from infini_eval.models.naive import gate
from infini_eval.models.state import BatchState, LayerState, StateShape, Step, Window


@dataclass
class LayerWeights:
    """One decoder layer's local weights, each [out, in]; q and k in the order that models/attention.py rotates.

    `gates` weigh what the memory returns and local attention, g and 1 - g, each [N, 1]; None without gates. Only a Qwen2
    has a `qkv_bias`, layers without a rotary embedding, and a `window` (keys that a query sees, its own included).
    """

    input_norm: torch.Tensor
    qkv: torch.Tensor
    o: torch.Tensor
    post_norm: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor
    gates: tuple[torch.Tensor, torch.Tensor] | None
    qkv_bias: torch.Tensor | None = None
    rotates: bool = True
    window: int | None = None


class Llama:
    """The layers of one pipeline stage, with the embedding on the first and the head on the last.

    Weights are plain local tensors (tp shards); the only communication inside a layer is one all-reduce after o_proj
    and one after down_proj.
    """

    def __init__(
        self,
        config: ModelConfig,
        settings: AttentionSettings,
        layers: list[LayerWeights],
        *,
        embedding: torch.Tensor | None,
        final_norm: torch.Tensor | None,
        head: torch.Tensor | None,
        tensor_parallel: TensorParallel,
        dtype: torch.dtype,
        device: torch.device,
        memory_dtype: torch.dtype,
    ) -> None:
        self.config, self.settings, self.layers = config, settings, layers
        self.embedding, self.final_norm, self.head = embedding, final_norm, head
        self.tp = tensor_parallel
        self.dtype, self.device, self.memory_dtype = dtype, device, memory_dtype
        self.heads, self.kv_heads = self.tp.local_heads(config.num_attention_heads, config.num_key_value_heads)
        self._compiled_layer: Callable[..., torch.Tensor] | None = None
        self._compiled_absorb: Callable[..., None] | None = None
        self.rotary = RotaryTable(config.head_dim, config.rope_theta, dtype, device, config.rope_interpolation)
        if settings.segment_length is not None:
            self.rotary.ensure(settings.segment_length)

    def compile(self) -> None:
        """Compile a layer for the steps whose shapes recur: chunks of whole segments, and the fixed decode step."""
        # one variant for each number of rows and segments, and for the first chunk, which has no memory to read
        torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
        self._compiled_layer = torch.compile(self._layer, dynamic=False)
        self._compiled_absorb = torch.compile(self._absorb, dynamic=False)

    def new_state(self, batch: int, longest: int, step_tokens: int | None = None) -> BatchState:
        """Make the state for `batch` sequences of at most `longest` tokens (prompt and answer).

        Args:
            step_tokens: the most tokens of a row in one step (None: any number), which bounds what layers with a window
                keep.
        """
        length = self.settings.segment_length
        capacity = longest if length is None else length
        self.rotary.ensure(capacity)
        shape = StateShape(batch, self.kv_heads, self.config.head_dim, capacity, self.settings.keeps_memory)
        most = capacity if step_tokens is None else step_tokens
        windows = [None if layer.window is None else Window.of(layer.window, capacity, most) for layer in self.layers]
        shapes = [shape if window is None else replace(shape, window=window) for window in windows]
        return BatchState(shapes, length, self.dtype, self.memory_dtype, self.device)

    def embed(self, ids_BT: torch.Tensor) -> torch.Tensor:
        """Embed token ids: [B, T] int64 -> [B, T, D]; the vocabulary is sharded over tp."""
        assert self.embedding is not None, "only the first stage embeds"
        return self.tp.embed(ids_BT, self.embedding, self.config.vocab_size)

    def run_layers(self, x_BTD: torch.Tensor, state: BatchState, step: Step) -> torch.Tensor:
        """Run the stage's layers over one step; updates `state`."""
        return self._run(len(self.layers), x_BTD, state, step, self.rotary.at(step.positions))

    def run_layers_to_ends(
        self, x_BTD: torch.Tensor, state: BatchState, step: Step, end_B: torch.Tensor | None
    ) -> torch.Tensor | None:
        """Run the last stage's layers over one step of which only the tokens `end_B` are read: [B, D], or None for None.

        All layers take in all tokens; the last one attends and transforms those of `end_B` only. Of a step of whole
        segments with ends, everything is computed.
        """
        cos_sin = self.rotary.at(step.positions)
        if end_B is not None and step.segments:
            hidden_BTD = self._run(len(self.layers), x_BTD, state, step, cos_sin)
            return _at(hidden_BTD, end_B)[:, 0]
        x_BTD = self._run(len(self.layers) - 1, x_BTD, state, step, cos_sin)
        weights, layer_state = self.layers[-1], state.layers[-1]
        if end_B is None:
            absorbs = self._compiled_absorb if self._compiled_absorb is not None and step.recurs else self._absorb
            absorbs(x_BTD, weights, layer_state, step, cos_sin)
            return None
        return self._layer_at(x_BTD, weights, layer_state, step, cos_sin, end_B)[:, 0]

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Apply final norm and head: [..., D] -> this rank's logits [..., V / tp] in fp32."""
        assert self.final_norm is not None and self.head is not None, "only the last stage has the head"
        return F.linear(self._norm(x, self.final_norm), self.head).float()

    def nbytes(self) -> int:
        """Count the bytes of this rank's weights."""
        tensors = [self.embedding, self.final_norm, None if self.head is self.embedding else self.head]
        for layer in self.layers:
            tensors += [layer.input_norm, layer.qkv, layer.o, layer.post_norm, layer.gate_up, layer.down]
            tensors += [layer.qkv_bias, *(layer.gates or ())]
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)

    def _layer(
        self,
        x: torch.Tensor,
        weights: LayerWeights,
        state: LayerState,
        step: Step,
        cos_sin: tuple[torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        normed = self._norm(x, weights.input_norm)
        qk, v = self._project(normed, weights)
        rotation = cos_sin if weights.rotates else None
        attended = attend(qk, v, weights.gates, self.rotary, rotation, state, step, self.settings)
        return self._transform(x, attended, weights)

    def _layer_at(
        self,
        x: torch.Tensor,
        weights: LayerWeights,
        state: LayerState,
        step: Step,
        cos_sin: tuple[torch.Tensor, torch.Tensor],
        end_B: torch.Tensor,
    ) -> torch.Tensor:
        """The layer's output [B, 1, D] at one token of each row of an open step; all tokens enter its state."""
        normed, width = self._norm(x, weights.input_norm), self.heads * self.config.head_dim
        bias = None if weights.qkv_bias is None else weights.qkv_bias[:width]
        q_B1NH = F.linear(_at(normed, end_B), weights.qkv[:width], bias).unflatten(-1, (-1, self.config.head_dim))
        k, v = self._keys_and_values(normed, weights)
        ends, rotation = step.at(end_B), cos_sin if weights.rotates else None
        attended = attend_at_ends(q_B1NH, k, v, weights.gates, self.rotary, rotation, state, step, ends, self.settings)
        return self._transform(_at(x, end_B), attended, weights)

    def _absorb(
        self,
        x: torch.Tensor,
        weights: LayerWeights,
        state: LayerState,
        step: Step,
        cos_sin: tuple[torch.Tensor, torch.Tensor],
    ) -> None:
        """Only what later steps read of the layer: its keys and values, or the memory that they are written to."""
        k, v = self._keys_and_values(self._norm(x, weights.input_norm), weights)
        absorb(k, v, self.rotary, cos_sin if weights.rotates else None, state, step, self.settings)

    def _transform(self, x: torch.Tensor, attended_BTNH: torch.Tensor, weights: LayerWeights) -> torch.Tensor:
        """Add attention's and the MLP's part to the residual stream."""
        x = x + self.tp.all_reduce(F.linear(attended_BTNH.flatten(2), weights.o))
        gated, up = F.linear(self._norm(x, weights.post_norm), weights.gate_up).chunk(2, dim=-1)
        return x + self.tp.all_reduce(F.linear(F.silu(gated) * up, weights.down))

    def _run(
        self,
        layers: int,
        x: torch.Tensor,
        state: BatchState,
        step: Step,
        cos_sin: tuple[torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        """The stage's first layers, as many as `layers`."""
        layer = self._compiled_layer if self._compiled_layer is not None and step.recurs else self._layer
        for weights, layer_state in zip(self.layers[:layers], state.layers[:layers], strict=True):
            x = layer(x, weights, layer_state, step, cos_sin)
        return x

    def _keys_and_values(self, normed_BTD: torch.Tensor, weights: LayerWeights) -> tuple[torch.Tensor, torch.Tensor]:
        """k and v, each [B, T, G, H]."""
        width = self.heads * self.config.head_dim
        bias = None if weights.qkv_bias is None else weights.qkv_bias[width:]
        fused = F.linear(normed_BTD, weights.qkv[width:], bias)
        k, v = fused.unflatten(-1, (-1, self.config.head_dim)).chunk(2, dim=2)
        return k, v

    def _project(self, x_BTD: torch.Tensor, weights: LayerWeights) -> tuple[torch.Tensor, torch.Tensor]:
        """q and k side by side [B, T, N + G, H], and v [B, T, G, H]."""
        fused = F.linear(x_BTD, weights.qkv, weights.qkv_bias).unflatten(-1, (-1, self.config.head_dim))
        qk, v = fused.split([self.heads + self.kv_heads, self.kv_heads], dim=2)
        return qk, v

    def _norm(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, (x.shape[-1],), weight, self.config.rms_norm_eps)


def _at(x_BTD: torch.Tensor, token_B: torch.Tensor) -> torch.Tensor:
    """One token of each row, [B, 1, D]."""
    return x_BTD.gather(1, token_B[:, None, None].expand(-1, 1, x_BTD.shape[2]))


def activated_gates(
    balance_factors_N: torch.Tensor, activation: str | None, memory_dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute g and 1 - g as [N, 1], once, in the memory's dtype (the reference computes them in the model's)."""
    gate_N1 = gate(balance_factors_N.to(memory_dtype), activation)[:, None]
    return gate_N1, 1 - gate_N1
