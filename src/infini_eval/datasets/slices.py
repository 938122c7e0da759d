"""Which slices of the haystack go between the needles, so that together they have exactly the tokens wanted."""

from __future__ import annotations

from collections.abc import Sequence

from infini_eval.datasets.haystack import Haystack

Slices = list[tuple[int, int]]  # pairs of cuts
SPLICE_TOKENS = 64  # how far before its end a gap is spliced where no cut fits the count
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
    """Slices from cut `first` on with exactly `tokens` tokens."""
    if tokens <= 0:
        return [] if tokens == 0 else None
    origin = int(haystack.cut_tokens[first])
    splice = max(first, haystack.cut_at(origin + tokens - SPLICE_TOKENS))
    before = haystack.slice_tokens(first, splice)
    found = 0
    for skipped in range(MOST_SKIPPED_CUTS):
        resume = splice + skipped
        if resume >= len(haystack.cut_tokens):
            return None
        end = haystack.cut_exactly(int(haystack.cut_tokens[resume]) + tokens - before)
        if end is None:
            continue
        if found == variant:
            parts = [(first, splice), (resume, end)] if skipped else [(first, end)]
            return [(a, b) for a, b in parts if b > a]
        found += 1
    return None
