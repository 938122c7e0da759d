"""The columns of records that reports use, each with its one type: number (float64), flag (bool) or text (string)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

NUMBERS = (
    "depth_percent", "context_length", "num_digits", "correct", "prompt_tokens", "generation_tokens",
    "needle_token_start", "needle_token_end", "needle_segment", "question_segment", "compressions", "phase", "seconds",
    "reused_tokens", "real_depth", "haystack_start", "haystack_end",
)  # fmt: skip
FLAGS = ("needle_straddles_border", "answer_crosses_border")
TEXTS = (
    "sample_key", "id", "answer", "generation_text", "status", "finish_reason", "error", "extracted",
    "haystack_id", "haystack_hash", "haystack_pool", "haystack", "excerpt", "prompt_sha256", "number_from",
)  # fmt: skip


def no_rows(wanted: list[str]) -> pa.Table:
    """The table of an empty file."""
    import pyarrow as pa

    return pa.table({name: pa.array([], pa.null()) for name in wanted})
