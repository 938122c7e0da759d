"""Accuracy by where the needle lies: within the question's segment, across borders, and by compressions survived."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infini_eval.reports.statistics.intervals import Proportion, proportion
from infini_eval.reports.statistics.scored import Scored

if TYPE_CHECKING:
    import numpy as np

MAX_EXACT = 12


@dataclass(frozen=True)
class SegmentGroups:
    """Samples by the needle's real token span (DESIGN 11), not by depth.

    `within`: no border between needle and question, needle in one segment. `cross`: at least one border between them.
    `straddling`: the needle itself lies on a border (a part of the cross samples, or between the two). `unknown`: the
    records do not say, or the model has no segments.
    """

    within: Proportion
    cross: Proportion
    straddling: Proportion
    unknown: Proportion


def segment_groups(scored: Scored) -> SegmentGroups:
    """Within, across, straddling; every sample of a model with segments is in one of the first three."""
    import numpy as np

    known = ~np.isnan(scored.compressions)
    straddles = known & (scored.straddles == 1)
    return SegmentGroups(
        within=accuracy(scored, known & (scored.compressions == 0) & ~straddles),
        cross=accuracy(scored, known & (scored.compressions >= 1)),
        straddling=accuracy(scored, straddles),
        unknown=accuracy(scored, ~known),
    )


def by_compressions(scored: Scored) -> list[tuple[int, int, Proportion]]:
    """(first, last, accuracy) for each number of compressions; in powers of two where there are more than twelve."""
    import numpy as np

    known = scored.where(~np.isnan(scored.compressions))
    values = known.compressions.astype(np.int64)
    exact = np.unique(values)
    if len(exact) <= MAX_EXACT:
        edges = [(int(value), int(value)) for value in exact]
    else:
        tops = [2**i for i in range(int(values.max()).bit_length() + 1)]
        edges = [(0, 0), (1, 1), *((low + 1, high) for low, high in itertools.pairwise(tops))]
    found = [(low, high, accuracy(known, (values >= low) & (values <= high))) for low, high in edges]
    return [group for group in found if group[2].n]


def accuracy(scored: Scored, mask: np.ndarray) -> Proportion:
    """Right answers among the samples where `mask` (bool [samples]) holds, with the interval over their haystacks."""
    return proportion(scored.correct[mask], None if scored.cluster is None else scored.cluster[mask])
