"""One step of an engine: new tokens, context, rows, dtypes; what the arithmetic of activations starts from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from infini_eval.planning.architecture import Architecture
from infini_eval.planning.weights import bits_of, kv_heads_of_a_shard

AttentionKernel = Literal["sdpa", "flash", "eager"]
Phase = list[float]  # bytes of each tensor that is alive at the same moment


@dataclass(frozen=True)
class StepShape:
    """One step: `tokens` new ones in each of `rows` sequences that have `context` tokens when it ends."""

    tokens: int
    context: int
    rows: int = 1
    tp: int = 1
    dtype: str = "bfloat16"
    kv_dtype: str = "bfloat16"
    memory_dtype: str = "float32"
    kernel: AttentionKernel = "sdpa"

    @property
    def new_tokens(self) -> int:
        """New tokens over all rows."""
        return self.rows * min(self.tokens, self.context)

    @property
    def value_bytes(self) -> float:
        """Bytes of one value in the model's dtype."""
        return bits_of(self.dtype) / 8


@dataclass(frozen=True)
class Widths:
    """Values a token of one tp shard: D model, Q queries, K keys (as many values), I the widest MLP."""

    d: float
    q: float
    k: float
    inner: float


def widths(architecture: Architecture, tp: int) -> Widths:
    """D, and Q, K, I of one shard."""
    width = architecture.head_dim
    kv = kv_heads_of_a_shard(architecture.num_kv_heads, tp) * width
    return Widths(architecture.hidden_size, architecture.num_heads * width / tp, kv, architecture.widest_mlp / tp)
