"""What RULER's aggregation tasks share: a prompt that is a list, as long as fits."""

from __future__ import annotations

from collections.abc import Callable

from infini_eval.api.task import PromptTokenizer
from infini_eval.errors import DataError


def longest_that_fits(
    make: Callable[[int], str], target: int, tokenizer: PromptTokenizer, smallest: int, largest: int | None = None
) -> str:
    """The text of the greatest size (up to `largest`) whose tokens are at most `target`; text grows with size."""
    if tokenizer.count(make(smallest)) > target:
        raise DataError(
            f"{target} tokens are too few: the smallest list takes {tokenizer.count(make(smallest))}",
            next_step="ask for a longer context; a task with a worked example is shorter with --option example=no",
        )
    low, high = smallest, smallest * 2 + 1
    while (largest is None or high <= largest) and tokenizer.count(make(high)) <= target:
        low, high = high, high * 2
    high = high if largest is None else min(high, largest + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if tokenizer.count(make(middle)) <= target else (low, middle)
    return make(low)
