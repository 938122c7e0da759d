"""What a run tells its user, once: notes, and the real lengths beside the labels."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from infini_eval.backends._backend import Prepared
from infini_eval.distributed.launch import World

logger = logging.getLogger(__name__)


def say(world: World, lines: Sequence[str]) -> None:
    """Log lines on rank 0."""
    if world.is_main:
        for line in lines:
            logger.warning("%s", line)


def say_lengths(world: World, prepared: Sequence[Prepared]) -> None:
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
