"""The scored samples of a run as numpy columns: what every statistic is computed from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from infini_eval.reports.statistics.depth_labels import depths_to_group_by
from infini_eval.results.reader import RunRecords

if TYPE_CHECKING:
    import numpy as np

MAX_DEPTHS = 101


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

        columns = {name: value[mask] for name, value in vars(self).items() if name != "cluster"}
        cluster = None
        if self.cluster is not None:
            cluster = np.unique(self.cluster[mask], return_inverse=True)[1]
        return Scored(**columns, cluster=cluster)

    def lengths(self) -> list[float | None]:
        """The distinct labelled lengths, ascending; None stands for samples without a label."""
        import numpy as np

        known = np.unique(self.length[~np.isnan(self.length)]).tolist()
        return [*known, None] if np.isnan(self.length).any() else known

    def of_length(self, length: float | None) -> Scored:
        import numpy as np

        return self.where(np.isnan(self.length) if length is None else self.length == length)


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
    """Which haystack each sample stands in, int64 from 0 upwards; None unless every sample says so."""
    import numpy as np

    for name in ("haystack_id", "haystack_hash"):
        found = records.codes(name)[0][row]
        if len(found) and (found >= 0).all():
            return np.unique(found, return_inverse=True)[1]
    return None


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
