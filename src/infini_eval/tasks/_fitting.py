"""Prompts that are lists, fitted to a length: as many items as fit, and the last one cut so that the tokens come out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

from infini_eval.api.task import PromptTokenizer
from infini_eval.errors import DataError

TAIL_CHARS = 512  # before the place where two prompts part: tokenised with what follows it
DROPPED_WORDS = 24  # of these last words of a part, one or (of half as many) two may be left out


def largest_that_fits(tokens_of: Callable[[int], int], target: int, smallest: int, largest: int | None = None) -> int:
    """The greatest size, up to `largest`, whose tokens are at most `target`; tokens grow with the size.

    DataError where even the smallest size has more.
    """
    first = at_low = tokens_of(smallest)
    if first > target:
        raise DataError(
            f"{target} tokens are too few: the smallest prompt takes {first}",
            next_step="ask for a longer context; a task with a worked example is shorter with --option example=no",
        )
    low, high, at_high = smallest, None if largest is None else largest + 1, 0
    probe = smallest + 1
    for turn in itertools.count():
        if high is not None and high - low <= 1:
            return low
        probe = max(low + 1, probe if high is None else min(probe, high - 1))
        at = tokens_of(probe)
        if at <= target:
            low, at_low = probe, at
        else:
            high, at_high = probe, at
        if high is None or not at_high:  # on the straight line through the first size and the greatest that fits
            probe = low + 1 + int((target - at_low) * (low - smallest) / max(1, at_low - first))
        elif turn % 3 == 2:
            probe = (low + high) // 2
        else:  # on the straight line between the two
            probe = low + int((target - at_low) * (high - low) / max(1, at_high - at_low))
    raise AssertionError("the search ends by itself")


def filling(make: Callable[[str], str], words: Sequence[str], target: int, tokenizer: PromptTokenizer) -> str | None:
    """The part that gives make(part) exactly `target` tokens: the first of `words`, perhaps without one or two.

    None where there is none. What a part adds is counted in the end of the prompt alone, the result is counted whole.
    """
    bare = make("")
    missing = target - tokenizer.count(bare)
    if missing <= 0:
        return None
    tail = max(0, _shared(bare, make(words[0])) - TAIL_CHARS)
    at_bare = tokenizer.count(bare[tail:], add_special_tokens=False)

    def adds(part: str) -> int:
        return tokenizer.count(make(part)[tail:], add_special_tokens=False) - at_bare

    for part in _parts(words, adds, missing):
        if adds(part) == missing and tokenizer.count(make(part)) == target:
            return part
    return None


def _parts(words: Sequence[str], adds: Callable[[str], int], missing: int) -> Iterator[str]:
    """Parts that may add `missing` tokens: the words that it takes, or up to three more without one or two others."""
    low, high = 0, len(words) + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if adds(" ".join(words[:middle])) <= missing else (low, middle)
    if low:
        yield " ".join(words[:low])
    for left_out in (1, 2):
        for number in range(low + 1, min(low + 3, len(words)) + 1):
            last = range(max(0, number - DROPPED_WORDS // left_out), number - 1)
            for without in itertools.combinations(last, left_out):
                yield " ".join(word for place, word in enumerate(words[:number]) if place not in without)


def _shared(a: str, b: str) -> int:
    """How many characters two texts begin with alike."""
    low, high = 0, min(len(a), len(b)) + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if a[low:middle] == b[low:middle] else (low, middle)
    return low


def no_exact_prompt(target: int, tokenizer: PromptTokenizer) -> DataError:
    return DataError(
        f"no prompt of exactly {target} tokens can be made with the tokenizer {tokenizer.name}",
        next_step="ask for another length, or another --seed",
    )
