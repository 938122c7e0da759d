"""The scored samples of a run as numpy columns, and their groups: by depth, place among the segments, and phase."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infini_eval.clusters import REPEATING_SOURCES, overlap_clusters
from infini_eval.reports.statistics.intervals import Proportion, proportion
from infini_eval.results.reader import RunRecords

if TYPE_CHECKING:
    import numpy as np

    from infini_eval.results.reader import RunRecords


def depths_to_group_by(records: RunRecords) -> np.ndarray:
    """Percent, float64 [rows]: the label, or the real depth rounded to 5 % where the label is more than 5 points off.

    Data that do not say the real depth (column `real_depth`) are grouped by label. NaN where there is no label.
    """
    import numpy as np

    label, real = records.number("depth_percent"), records.number("real_depth")
    return np.where(_off(label, real), np.round(real / 5) * 5, label)


def label_warning(records: RunRecords, row: np.ndarray) -> str | None:
    """What to say about these rows where labels are more than 5 points off; None where all are right or unknown."""
    import numpy as np

    from infini_eval.data.haystack import OFF_POINTS

    label, real = records.number("depth_percent", row), records.number("real_depth", row)
    off = _off(label, real)
    if not off.any():
        return None
    worst = int(np.nanargmax(np.where(off, np.abs(label - real), np.nan)))
    return (
        f"{int(off.sum())} of {len(row)} depth labels are more than {OFF_POINTS:g} points off (at worst {label[worst]:g} % "
        f"says the label, {real[worst]:.1f} % it is): these samples are grouped by their real depth"
    )


def _off(label: np.ndarray, real: np.ndarray) -> np.ndarray:
    import numpy as np

    from infini_eval.data.haystack import is_off

    with np.errstate(invalid="ignore"):
        return (real >= 0) & (real <= 100) & is_off(label, real)


MAX_DEPTHS = 101
_PLACE = ("haystack_start", "haystack_end")


@dataclass(frozen=True)
class Scored:
    """Columns float64 [samples], NaN where unknown. `row` numbers the run's records; `cluster` is None where unknown.

    `depth` is in percent (see `depths_to_group_by`), `length` the data set's label in tokens, `tokens` the real prompt length.
    """

    row: np.ndarray
    correct: np.ndarray
    depth: np.ndarray
    length: np.ndarray
    tokens: np.ndarray
    compressions: np.ndarray
    straddles: np.ndarray
    phase: np.ndarray
    answer_crosses: np.ndarray
    cluster: np.ndarray | None

    def __len__(self) -> int:
        return len(self.row)

    def where(self, mask: np.ndarray) -> Scored:
        """The samples where `mask` (bool [samples]) holds; clusters are numbered anew from 0."""
        import numpy as np

        return self if mask.all() else self.take(np.flatnonzero(mask))

    def take(self, chosen: np.ndarray) -> Scored:
        """The samples with these numbers; clusters are numbered anew from 0."""
        import numpy as np

        columns = {name: value[chosen] for name, value in vars(self).items() if name != "cluster"}
        cluster = None
        if self.cluster is not None:
            cluster = np.unique(self.cluster[chosen], return_inverse=True)[1]
        return Scored(**columns, cluster=cluster)

    def lengths(self) -> list[float | None]:
        """The distinct labelled lengths, ascending; None stands for samples without a label."""
        import numpy as np

        known = np.unique(self.length[~np.isnan(self.length)]).tolist()
        return [*known, None] if np.isnan(self.length).any() else known

    def by_length(self) -> dict[float | None, Scored]:
        """The samples of each of `lengths`; all are parted at once, as a run may have thousands of lengths."""
        import numpy as np

        order = np.argsort(self.length, kind="stable")  # samples without a label come last
        ends = np.searchsorted(self.length[order], [length for length in self.lengths() if length is not None], "right")
        parts = [part for part in np.split(order, ends) if len(part)]
        return {length: self.take(part) for length, part in zip(self.lengths(), parts, strict=True)}


def scored_samples(records: RunRecords) -> Scored:
    """The samples of a run that were judged; failed ones (no score) and those without a depth are left out."""
    import numpy as np

    correct = records.number("correct")
    row = np.flatnonzero(~np.isnan(correct) & ~np.isnan(records.number("depth_percent")))
    names = {
        "length": "context_length", "tokens": "prompt_tokens", "compressions": "compressions",
        "straddles": "needle_straddles_border", "phase": "phase", "answer_crosses": "answer_crosses_border",
    }  # fmt: skip
    columns = {name: records.number(column)[row] for name, column in names.items()}
    columns["depth"] = depths_to_group_by(records)[row]
    return Scored(row=row, correct=correct[row], cluster=_clusters(records, row), **columns)


def _clusters(records: RunRecords, row: np.ndarray) -> np.ndarray | None:
    """Which haystack each sample stands in, int64 from 0 upwards; None unless every sample says so.

    By the name that the data give it (`haystack_id`), else by place: haystacks that overlap in their pool are one. Data
    sets of before the place was written know the start only; of sources that repeat one text that is one haystack.
    """
    import numpy as np

    named = _known(records, "haystack_id", row)
    if named is not None:
        return named
    pool, start, end = _known(records, "haystack_pool", row), *(records.number(name)[row] for name in _PLACE)
    if pool is not None and not np.isnan(start + end).any():
        return overlap_clusters(pool, start.astype(np.int64), end.astype(np.int64))
    hashes = _known(records, "haystack_hash", row)
    if hashes is None:
        return None
    source, names = records.codes("haystack")
    repeating = np.isin(source[row], [code for code, name in enumerate(names) if name in REPEATING_SOURCES])
    return np.unique(np.where(repeating, -1 - source[row], hashes), return_inverse=True)[1]


def _known(records: RunRecords, name: str, row: np.ndarray) -> np.ndarray | None:
    """A text column's numbers from 0 upwards, int64 [samples]; None unless every sample has one."""
    import numpy as np

    found = records.codes(name)[0][row]
    return np.unique(found, return_inverse=True)[1] if len(found) and (found >= 0).all() else None


def depth_groups(scored: Scored) -> tuple[np.ndarray, np.ndarray, bool]:
    """Depths in percent [groups], the group of each sample [samples], and whether depths were rounded to 5 %.

    Freely drawn depths (more than 101 of them) are rounded, because a group of one sample says nothing.
    """
    import numpy as np

    depths, group = np.unique(scored.depth, return_inverse=True)
    if len(depths) <= MAX_DEPTHS:
        return depths, group, False
    depths, group = np.unique(np.round(scored.depth / 5) * 5, return_inverse=True)
    return depths, group, True


MAX_EXACT = 12


@dataclass(frozen=True)
class SegmentGroups:
    """Samples by the needle's real token span , not by depth.

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


@dataclass(frozen=True)
class PhaseGroups:
    """`inside`: the whole answer is predicted in one segment; `crossing`: later tokens of it from a new segment.

    `phases` counts the distinct offsets of the answer in its segment; `cells` the (length, depth) cells of at least
    two samples, `fixed_cells` those of them whose samples all share one phase; `only_phase` is that phase where the
    whole run has a single one.
    """

    inside: Proportion
    crossing: Proportion
    phases: int
    cells: int
    fixed_cells: int
    only_phase: int | None


def phase_groups(scored: Scored) -> PhaseGroups | None:
    """None where no sample says its phase (a model without segments, foreign records)."""
    import numpy as np

    known = scored.where(~np.isnan(scored.phase))
    if not len(known):
        return None
    cell_phases = _phases_of_cells(known)
    distinct = np.unique(known.phase)
    return PhaseGroups(
        inside=accuracy(known, known.answer_crosses == 0),
        crossing=accuracy(known, known.answer_crosses == 1),
        phases=len(distinct),
        cells=len(cell_phases),
        fixed_cells=sum(count == 1 for count in cell_phases),
        only_phase=int(distinct[0]) if len(distinct) == 1 else None,
    )


def _phases_of_cells(scored: Scored) -> list[int]:
    """The number of distinct phases in each (length, depth) cell of at least two samples."""
    import numpy as np

    depth = depth_groups(scored)[1]
    length = np.unique(np.nan_to_num(scored.length, nan=-1), return_inverse=True)[1]
    phase = np.unique(scored.phase, return_inverse=True)[1]
    cell = length * (int(depth.max()) + 1) + depth
    pairs = np.unique(cell * (int(phase.max()) + 1) + phase)
    phases = np.bincount(pairs // (int(phase.max()) + 1), minlength=int(cell.max()) + 1)
    counts: list[int] = phases[np.bincount(cell) >= 2].tolist()
    return counts


def phase_warning(groups: PhaseGroups | None) -> str | None:
    """What to say where cells have a single alignment to the segments; one unlucky one can zero a whole cell."""
    if groups is None or not groups.fixed_cells:
        return None
    if groups.only_phase is not None:
        return (
            f"all samples share one phase (the answer starts at offset {groups.only_phase} of its segment): "
            "accuracy is for this alignment only; data with jittered length show the others"
        )
    return (
        f"in {groups.fixed_cells} of {groups.cells} cells all samples share one phase: each accuracy is for one "
        "alignment to the segments only; data with jittered length show the others"
    )
