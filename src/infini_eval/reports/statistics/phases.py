"""Accuracy by phase: answers predicted inside one segment against answers that run over a segment border."""

from __future__ import annotations

from dataclasses import dataclass

from infini_eval.reports.statistics.intervals import Proportion
from infini_eval.reports.statistics.scored import Scored, depth_groups
from infini_eval.reports.statistics.segments import accuracy


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
    return phases[np.bincount(cell) >= 2].tolist()


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
