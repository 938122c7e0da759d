"""What failed samples leave open: the accuracy if all of them were wrong, and if all of them were right."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from infini_eval.reports.statistics.intervals import Average, Proportion, average_over, proportions
from infini_eval.reports.statistics.samples import Scored, depth_groups

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Counted:
    """The samples of a run or of a part of it: `scored` those that were answered, `everything` the failed ones too.

    In `everything` a failed sample counts as wrong. Both are the same where none failed.
    """

    scored: Scored
    everything: Scored

    @property
    def failed(self) -> int:
        return len(self.everything) - len(self.scored)

    def lengths(self) -> list[float | None]:
        """The labelled lengths, those included at which every sample failed."""
        return self.everything.lengths()

    def of_length(self, length: float | None) -> Counted:
        return Counted(self.scored.of_length(length), self.everything.of_length(length))

    def is_failed(self) -> np.ndarray:
        """bool [samples of `everything`]."""
        import numpy as np

        return ~np.isin(self.everything.row, self.scored.row)


@dataclass(frozen=True)
class Bounds:
    """An average over depths with failed samples left out (None where nothing was answered), as wrong, and as right."""

    answered: Average | None
    as_wrong: Average
    as_right: Average

    @property
    def claim(self) -> Average:
        """What may be said whatever the failed samples would have answered: the lower average, the widest interval.

        The ends are those of two 95 % intervals, so that the interval covers every share of right answers among the
        failed samples (bounds without assumptions about what is missing, Manski 1990). Without failures this is the
        average itself.
        """
        return replace(self.as_wrong, low=self.as_wrong.low, high=self.as_right.high)


def bounds(counted: Counted) -> Bounds:
    """The average accuracy over depths in its three readings; `counted` holds at least one sample."""
    import numpy as np

    group = depth_groups(counted.everything)[1]
    wrong = average_over(group, counted.everything.correct, counted.everything.cluster)
    if not counted.failed:
        return Bounds(wrong, wrong, wrong)
    failed = counted.is_failed()
    right = average_over(group, np.where(failed, 1.0, counted.everything.correct), counted.everything.cluster)
    answered = None
    if len(counted.scored):
        own = np.unique(group[~failed], return_inverse=True)[1]
        answered = average_over(own, counted.scored.correct, counted.scored.cluster)
    return Bounds(answered, wrong, right)


@dataclass(frozen=True)
class DepthCell:
    """One depth: its answered samples, and how many more failed."""

    depth_percent: float
    answered: Proportion
    failed: int

    @property
    def accuracy_failed_as_wrong(self) -> float:
        return self.answered.correct / (self.answered.n + self.failed)


def cells(counted: Counted) -> tuple[list[DepthCell], bool]:
    """One cell a depth, ascending, and whether depths were rounded (see `depth_groups`)."""
    import numpy as np

    depths, group, rounded = depth_groups(counted.everything)
    failed = counted.is_failed()
    answered = proportions(group[~failed], counted.scored.correct, counted.scored.cluster, len(depths))
    missing = np.bincount(group[failed], minlength=len(depths))
    columns = zip(depths.tolist(), answered, missing.tolist(), strict=True)
    return [DepthCell(*column) for column in columns], rounded
