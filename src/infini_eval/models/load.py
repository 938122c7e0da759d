"""Builds the running model from a checkpoint: each rank reads only its own slices, in the dtype it computes in.

Also the checkpoint's gates by layer and head, for reports and diagnosis.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from infini_eval.checkpoint.layout import EMBEDDING, FINAL_NORM, LM_HEAD, layer_name
from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.config import ModelConfig, ModelSettings
from infini_eval.distributed.tensor_parallel import TensorParallel
from infini_eval.errors import ConfigError
from infini_eval.models.attention import AttentionSettings, interleaved_to_halves
from infini_eval.models.kernels import check_implementation
from infini_eval.models.llama import LayerWeights, Llama, activated_gates
from infini_eval.models.naive import gate

TORCH_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Resolved:
    """Settings with every "as the checkpoint says" filled in."""

    device: torch.device
    dtype: torch.dtype
    memory_dtype: torch.dtype
    attention: AttentionSettings
    config: ModelConfig


def resolve(config: ModelConfig, settings: ModelSettings, device: torch.device | None = None) -> Resolved:
    """Combine what the checkpoint says with what the user overrides.

    Raises:
        ConfigError: a setting cannot go together with this checkpoint or machine.
        BackendError: the attention implementation is not installed or not for this device.
    """
    device = torch.device(settings.device or default_device()) if device is None else device
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "--device cuda, but torch sees no GPU", valid="cpu", next_step="check nvidia-smi and the torch build"
        )
    dtype = TORCH_DTYPES[settings.dtype or config.dtype]
    check_implementation(settings.attn_implementation, device, dtype)
    if not config.has_segments and settings.memory in ("on", "ablate"):
        raise ConfigError(
            f"--memory {settings.memory}, but this checkpoint is a plain {config.family} without compressive memory",
            valid="leave --memory out",
        )
    if not config.has_segments and settings.feature_map != "reference":
        raise ConfigError(
            f"--feature-map {settings.feature_map}, but this checkpoint is a plain {config.family} without compressive memory",
            valid="leave --feature-map out",
        )
    if settings.rope_interleaved is not None:
        config = replace(config, rope_interleaved=settings.rope_interleaved)
    attention = AttentionSettings(
        segment_length=config.segment_length,
        memory="off" if not config.has_segments else settings.memory or config.memory,
        memory_query=settings.memory_query or config.memory_query,
        softmax_scale=config.softmax_scale,
        implementation=settings.attn_implementation,
        features=settings.feature_map,
    )
    memory_dtype = dtype if settings.memory_dtype == "model" else torch.float32
    return Resolved(device, dtype, memory_dtype, attention, config)


def default_device() -> str:
    """Choose cuda when torch sees a GPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def load_llama(
    checkpoint: Checkpoint,
    resolved: Resolved,
    tensor_parallel: TensorParallel,
    layers: range | None = None,
) -> Llama:
    """Load the model, or the `layers` of one pipeline stage (None: all); embedding with layer 0, head with the last layer."""
    config = resolved.config
    layers = range(config.num_hidden_layers) if layers is None else layers
    first, last = layers.start == 0, layers.stop == config.num_hidden_layers
    reader = _ShardReader(checkpoint, resolved, tensor_parallel)
    embedding = reader.sharded(EMBEDDING) if first or (last and config.tie_word_embeddings) else None
    head = None
    if last:
        head = embedding if config.tie_word_embeddings else reader.sharded(LM_HEAD)
    return Llama(
        config,
        resolved.attention,
        [_layer(reader, resolved, index) for index in layers],
        embedding=embedding if first else None,
        final_norm=reader.whole(FINAL_NORM) if last else None,
        head=head,
        tensor_parallel=tensor_parallel,
        dtype=resolved.dtype,
        device=resolved.device,
        memory_dtype=resolved.memory_dtype,
    )


def _layer(reader: _ShardReader, resolved: Resolved, index: int) -> LayerWeights:
    def name(part: str) -> str:
        return layer_name(index, part)

    gates = None
    if resolved.attention.memory != "off":
        factors = reader.sharded(name("attn.balance_factors"))
        gates = activated_gates(factors, resolved.config.gate_activation, resolved.memory_dtype)
    return LayerWeights(
        input_norm=reader.whole(name("input_layernorm.weight")),
        qkv=reader.qkv(name("attn.qkv_proj.weight")),
        o=reader.sharded(name("attn.o_proj.weight")),
        post_norm=reader.whole(name("post_attention_layernorm.weight")),
        gate_up=reader.sharded(name("mlp.gate_up_proj.weight")),
        down=reader.sharded(name("mlp.down_proj.weight")),
        gates=gates,
        qkv_bias=reader.qkv(name("attn.qkv_proj.bias")) if resolved.config.attention_bias else None,
        rotates=resolved.config.has_rotary(index),
        window=resolved.config.window_of(index),
    )


def balance_factors(checkpoint: Checkpoint) -> torch.Tensor:
    """Read the stored balance factors [layers, N] in their stored dtype; only for checkpoints with segments."""
    names = [layer_name(layer, "attn.balance_factors") for layer in range(checkpoint.config.num_hidden_layers)]
    return torch.stack([checkpoint.read(name) for name in names])


def gates(checkpoint: Checkpoint) -> torch.Tensor:
    """Compute the gates [layers, N] in fp32: 0 is local attention only, 1 memory only (orig_tanh: may be negative)."""
    return gate(balance_factors(checkpoint).float(), checkpoint.config.gate_activation)


class _ShardReader:
    """Reads this rank's slices of parameters onto the device."""

    def __init__(self, checkpoint: Checkpoint, resolved: Resolved, tensor_parallel: TensorParallel) -> None:
        self._checkpoint, self._resolved, self._tp = checkpoint, resolved, tensor_parallel

    def whole(self, name: str) -> torch.Tensor:
        return self._place(self._checkpoint.read(name, dtype=self._resolved.dtype))

    def sharded(self, name: str) -> torch.Tensor:
        spec = self._checkpoint.specs[name]
        ranges = spec.shard_ranges(self._tp.rank, self._tp.size)
        return self._place(self._checkpoint.read(name, ranges, self._resolved.dtype))

    def qkv(self, name: str) -> torch.Tensor:
        """Rows of our query heads, and of the kv heads they need (shared between ranks when tp exceeds the kv heads)."""
        config, spec = self._resolved.config, self._checkpoint.specs[name]
        queries, _, _ = spec.shard_ranges(self._tp.rank, self._tp.size)
        width, q_width, kv_width = config.head_dim, spec.chunks[0], spec.chunks[1]
        first, stop = self._tp.kv_head_range(config.num_key_value_heads)
        keys = (q_width + first * width, q_width + stop * width)
        values = (keys[0] + kv_width, keys[1] + kv_width)
        rows = self._checkpoint.read(name, [queries, keys, values], self._resolved.dtype)
        if config.rope_interleaved:
            qk, v = rows.tensor_split([rows.shape[0] - (stop - first) * width])
            rows = torch.cat((interleaved_to_halves(qk, width), v))
        return self._place(rows)

    def _place(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self._resolved.device)
