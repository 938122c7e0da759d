"""The scored samples of a run as numpy columns: what every statistic is computed from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from infini_eval.clusters import REPEATING_SOURCES, overlap_clusters
from infini_eval.reports.statistics.depth_labels import depths_to_group_by
from infini_eval.results.reader import RunRecords

if TYPE_CHECKING:
    import numpy as np

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
