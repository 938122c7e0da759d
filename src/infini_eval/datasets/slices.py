"""Which slices of the haystack go between the needles, so that together they have exactly the tokens wanted."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from infini_eval.datasets.haystack import Haystack

Slices = list[tuple[int, int]]  # pairs of cuts
SPLICE_TOKENS = (64, 512, 4_096)  # how far before its end a gap is spliced where no cut fits the count
MOST_SKIPPED_CUTS = 4_000


def plan_slices(
    haystack: Haystack, start: int, edges: Sequence[int], at_end: int, tokens: int, variant: int = 0
) -> list[Slices] | None:
    """The slices of each gap, one gap more than `edges` + `at_end`; None where no cuts give the count.

    `edges`: the cut of each needle that stands inside the haystack, in order. `at_end` more needles follow the whole
    haystack. The gap after the last edge takes what is left of `tokens`; where it would end inside a word, a few words
    near its end are left out. `variant` picks another way of doing so (0 is the first one found).
    """
    gaps: list[Slices] = []
    cut = start
    for edge in edges:
        gaps.append([(cut, edge)] if edge > cut else [])
        cut = edge
    rest = tokens - haystack.slice_tokens(start, cut)
    last = _exactly(haystack, cut, rest, variant)
    if last is None:
        return None
    return [*gaps, last, *([[]] * at_end)]


def _exactly(haystack: Haystack, first: int, tokens: int, variant: int) -> Slices | None:
    """Slices from cut `first` on with exactly `tokens` tokens: the `variant`-th way that is found."""
    if tokens <= 0:
        return [] if tokens == 0 else None
    ways = itertools.chain.from_iterable(_spliced(haystack, first, tokens, distance) for distance in SPLICE_TOKENS)
    return next(itertools.islice(ways, variant, None), None)


def _spliced(haystack: Haystack, first: int, tokens: int, distance: int) -> Iterator[Slices]:
    """Every way to leave out some words `distance` tokens before the end, fewest words first."""
    origin = int(haystack.cut_tokens[first])
    splice = max(first, haystack.cut_at(origin + tokens - distance))
    rest = tokens - haystack.slice_tokens(first, splice)
    if rest <= 0:  # in text with few cuts the nearest one may be the end already, or lie behind it
        if rest == 0 and not haystack.after_sentence[splice]:
            yield [(first, splice)]
        return
    for resume in range(splice, min(splice + MOST_SKIPPED_CUTS, len(haystack.cut_tokens))):
        end = haystack.cut_exactly(int(haystack.cut_tokens[resume]) + rest)
        if end is not None:
            parts = [(first, splice), (resume, end)] if resume > splice else [(first, end)]
            yield [(a, b) for a, b in parts if b > a]
