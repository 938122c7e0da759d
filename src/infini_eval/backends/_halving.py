"""When a batch does not fit into memory: its halves, down to single samples, which then fail with the reason."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

from infini_eval.api.backend import WorkItem
from infini_eval.errors import first_sentence
from infini_eval.records import Response

logger = logging.getLogger(__name__)
Answer = Callable[[list[WorkItem]], list[Response]]


def answer_or_halve(
    rows: list[WorkItem],
    answer: Answer,
    free: Callable[[], bool] = lambda: False,
    *,
    again: bool = False,
) -> list[Response]:
    """What `answer(rows)` gives, in as many parts as memory needs.

    free: gives up what can be had again and says whether there was anything; then the rows are tried once more as they
    are (`again`).
    """
    try:
        return answer(rows)
    except torch.OutOfMemoryError as error:
        reason = first_sentence(error)
    freed = free()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if freed and not again:
        logger.warning("out of memory with %d samples at once; trying again without the kept prefixes", len(rows))
        return answer_or_halve(rows, answer, free, again=True)
    if len(rows) == 1:
        problem = f"out of memory with one sample of {rows[0].tokens:,} tokens: {reason}"
        return [Response("", [], rows[0].tokens, "error", 0.0, problem)]
    logger.warning("out of memory with %d samples at once; trying %d", len(rows), len(rows) // 2)
    half = len(rows) // 2
    return [response for part in (rows[:half], rows[half:]) for response in answer_or_halve(part, answer, free)]
