"""What a model reads at most, and which prompts are longer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

SHOWN = 8


def window_of(model: Mapping[str, Any]) -> int | None:
    """Tokens that a model with these facts (manifest.model) reads at most; None where nothing bounds them.

    The positions of Infini-Attention restart in each segment, so its max_position_embeddings bounds no prompt.
    """
    return None if model.get("segment_length") else model.get("max_position_embeddings")


def beyond_window(tokens: Iterable[tuple[str, int | None]], answer_tokens: int, window: int | None) -> str | None:
    """One sentence that lists the prompts which, with their answers, exceed `window` tokens; None where none does.

    `tokens` are ids with the prompts' tokens (None or 0 where nobody has counted them).
    """
    if not window:
        return None
    longer = {name: count for name, count in tokens if count and count + answer_tokens > window}
    if not longer:
        return None
    worst = sorted(longer.items(), key=lambda item: (-item[1], item[0]))
    listed = ", ".join(f"{name} ({count:,})" for name, count in worst[:SHOWN])
    more = f" and {len(worst) - SHOWN} more" if len(worst) > SHOWN else ""
    return (
        f"{len(worst)} prompt(s) exceed the model's window of {window:,} tokens with an answer of {answer_tokens:,}: "
        f"{listed}{more}"
    )
