"""When a batch does not fit into memory: its halves, down to single samples, which then fail with the reason."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

from infini_eval.backends._backend import Prepared
from infini_eval.records import Response

logger = logging.getLogger(__name__)
Answer = Callable[[list[Prepared], list[int]], list[Response]]


def answer_or_halve(rows: list[Prepared], seeds: list[int], answer: Answer) -> list[Response]:
    """What `answer(rows, seeds)` gives, in as many parts as memory needs."""
    try:
        return answer(rows, seeds)
    except torch.OutOfMemoryError as error:
        reason = str(error).partition(". ")[0]
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if len(rows) == 1:
        problem = f"out of memory with one sample of {rows[0].tokens:,} tokens: {reason}"
        return [Response("", [], rows[0].tokens, "error", 0.0, problem)]
    logger.warning("out of memory with %d samples at once; trying %d", len(rows), len(rows) // 2)
    half = len(rows) // 2
    parts = ((rows[:half], seeds[:half]), (rows[half:], seeds[half:]))
    return [response for part in parts for response in answer_or_halve(*part, answer)]
