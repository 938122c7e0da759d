"""What a run tells its user before the first answer: notes, the prompts' real lengths, prompts that exceed the window."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from infini_eval.api.backend import WorkItem
from infini_eval.config import EvalConfig
from infini_eval.distributed.launch import World
from infini_eval.errors import DataError

logger = logging.getLogger(__name__)
SHOWN = 8


def log_notes(world: World, notes: Iterable[str], level: int = logging.INFO) -> None:
    """Log lines once, on rank 0; as warnings where the user should do something about them."""
    if world.is_main:
        for note in notes:
            logger.log(level, "%s", note)


def log_prompt_lengths(world: World, items: Sequence[WorkItem]) -> None:
    """Log the real lengths beside the labels, which often count another tokenizer's tokens."""
    if not world.is_main:
        return
    unit = "tokens" if any(item.tokens for item in items) else "characters"  # only the server has the tokenizer
    lengths = [item.tokens if unit == "tokens" else len(item.sample.prompt) for item in items]
    segments = [item.position.question_segment for item in items if item.position.question_segment is not None]
    line = f"{len(items)} samples of {min(lengths):,} to {max(lengths):,} {unit}"
    if segments:
        line += f" ({min(segments) + 1} to {max(segments) + 1} segments)"
    labels = sorted({item.sample.context_length for item in items if item.sample.context_length is not None})
    logger.info("%s; labelled %s", line, ", ".join(f"{label:,}" for label in labels) or "nothing")


def check_context_window(config: EvalConfig, world: World, model: Mapping[str, Any], items: Sequence[WorkItem]) -> None:
    """Warn of prompts that exceed the model's context window.

    Args:
        model: the facts that stand in manifest.model.

    Raises:
        DataError: there are such prompts, and --strict-data is given.
    """
    window = config.context_window or window_of(model)
    tokens = [(item.sample.id, item.tokens or item.sample.columns.get("input_tokens")) for item in items]
    finding = beyond_window(tokens, config.max_new_tokens, window)
    if finding and config.strict_data:
        raise DataError(finding, next_step="ask a model with a larger window, or leave --strict-data out to be warned")
    log_notes(world, [finding] if finding else [], logging.WARNING)


def window_of(model: Mapping[str, Any]) -> int | None:
    """Tokens that a model with these facts (manifest.model) reads at most; None where nothing bounds them.

    The positions of Infini-Attention restart in each segment, so its max_position_embeddings bounds no prompt.
    """
    window: int | None = model.get("max_position_embeddings")
    return None if model.get("segment_length") else window


def beyond_window(tokens: Iterable[tuple[str, int | None]], answer_tokens: int, window: int | None) -> str | None:
    """List in one sentence the prompts which, with their answers, exceed `window` tokens; None where none does.

    Args:
        tokens: ids with the prompts' tokens (None or 0 where nobody has counted them).
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
