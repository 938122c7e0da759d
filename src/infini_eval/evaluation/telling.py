"""What a run tells its user, once: notes, and the real lengths beside the labels."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from infini_eval.api.backend import WorkItem
from infini_eval.config import EvalConfig
from infini_eval.distributed.launch import World
from infini_eval.errors import DataError
from infini_eval.planning.window import beyond_window, window_of

logger = logging.getLogger(__name__)


def say(world: World, lines: Sequence[str]) -> None:
    """Log lines on rank 0."""
    if world.is_main:
        for line in lines:
            logger.warning("%s", line)


def say_lengths(world: World, prepared: Sequence[WorkItem]) -> None:
    """The real lengths: a data set's label often counts another tokenizer's tokens."""
    if not world.is_main:
        return
    unit = "tokens" if any(item.tokens for item in prepared) else "characters"  # only the server has the tokenizer
    lengths = [item.tokens if unit == "tokens" else len(item.sample.prompt) for item in prepared]
    segments = [item.position.question_segment for item in prepared if item.position.question_segment is not None]
    text = f"{len(prepared)} samples of {min(lengths):,} to {max(lengths):,} {unit}"
    if segments:
        text += f" ({min(segments) + 1} to {max(segments) + 1} segments)"
    labels = sorted({item.sample.context_length for item in prepared if item.sample.context_length is not None})
    logger.info("%s; labelled %s", text, ", ".join(f"{label:,}" for label in labels) or "nothing")


def say_window(config: EvalConfig, world: World, model: Mapping[str, Any], prepared: Sequence[WorkItem]) -> None:
    """Prompts that the model cannot read whole, before anything runs; an error under --strict-data."""
    window = config.context_window or window_of(model)
    tokens = [(item.sample.id, item.tokens or item.sample.columns.get("input_tokens")) for item in prepared]
    finding = beyond_window(tokens, config.max_new_tokens, window)
    if finding and config.strict_data:
        raise DataError(finding, next_step="ask a model with a larger window, or leave --strict-data out to be warned")
    say(world, [finding] if finding else [])
