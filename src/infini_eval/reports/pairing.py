"""Which samples two runs have in common; runs on different data are refused, with what differs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infini_eval.api import registry
from infini_eval.errors import DataError
from infini_eval.reports.model_facts import model_facts
from infini_eval.reports.scoring import with_scores
from infini_eval.reports.statistics.scored import Scored, scored_samples
from infini_eval.results.manifest import differences
from infini_eval.results.reader import RunRecords, read_run

if TYPE_CHECKING:
    import numpy as np

_MODEL_SETTINGS = ("checkpoint", "ckpt", "model", "memory", "dtype", "backend", "tokenizer")
_KEYS = ("sample_key", "prompt_sha256")


@dataclass(frozen=True)
class RunScores:
    """One run with its scored samples and their keys (None where the records have none)."""

    folder: Path
    records: RunRecords
    scored: Scored
    keys: tuple[str | None, ...]

    @property
    def name(self) -> str:
        """The folder's name, for tables and legends."""
        return self.folder.resolve().name


def read_scores(folder: Path) -> RunScores:
    """Read what a comparison needs of a run."""
    records = with_scores(read_run(folder, scorers=registry.names("scorers"), without=("excerpt",)))
    scored = scored_samples(records)
    if not len(scored):
        raise DataError(f"{folder} holds no answered sample", next_step="compare runs that have begun")
    name = next((name for name in _KEYS if name in records.present), None)
    keys = records.texts(name, scored.row) if name else [None] * len(scored)
    return RunScores(folder, records, scored, tuple(keys))


def pair(a: RunScores, b: RunScores) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Row numbers in `a.scored` and `b.scored` of the samples both have, and notes on those without a partner.

    DataError where the runs were judged by different scorers, or share less than half of the smaller one's samples.
    """
    import numpy as np

    scorers = [model_facts(run.records.manifest).scorer for run in (a, b)]
    if scorers[0] != scorers[1] and None not in scorers:
        raise DataError(
            f"{a.folder} was judged by {scorers[0]}, {b.folder} by {scorers[1]}: their scores are not comparable",
            next_step="evaluate both with the same --scorer",
        )
    place = {key: number for number, key in enumerate(b.keys) if key is not None}
    pairs = [(number, place[key]) for number, key in enumerate(a.keys) if key is not None and key in place]
    smaller = min(len(a.scored), len(b.scored))
    if len(pairs) * 2 < smaller or not pairs:
        raise _different_data(a, b, len(pairs))
    rows = np.array(pairs).T
    left = [(run.folder, len(run.scored) - len(pairs)) for run in (a, b)]
    return rows[0], rows[1], [f"{n} sample(s) of {folder} have no partner and were left out" for folder, n in left if n]


def _different_data(a: RunScores, b: RunScores, common: int) -> DataError:
    changed = [f"samples in common: {common} of {len(a.scored)} and {len(b.scored)}"]
    if None in a.keys or None in b.keys:
        changed.append("records without sample_key and prompt_sha256: nothing says which samples are the same")
    for name, values in (("context lengths", "length"), ("depths", "depth")):
        sets = [_distinct(getattr(run.scored, values)) for run in (a, b)]
        changed += [f"{name}: {sets[0]} -> {sets[1]}"] if sets[0] != sets[1] else []
    changed += _setting_differences(a.records.manifest, b.records.manifest)
    return DataError(
        f"{a.folder} and {b.folder} were not run on the same data:\n" + "\n".join(f"    {line}" for line in changed),
        valid="runs of the same samples (same data set, seed, number of samples, depths)",
        next_step="evaluate both on the same data set with the same --seed and --num_samples",
    )


def _setting_differences(a: dict[str, Any] | None, b: dict[str, Any] | None) -> list[str]:
    one, other = ((manifest or {}).get("identity") or {} for manifest in (a, b))
    return [line for line in differences(one, other) if not line.startswith(_MODEL_SETTINGS)]


def _distinct(values: np.ndarray) -> str:
    import numpy as np

    found = [f"{value:g}" for value in np.unique(values)]
    return ", ".join(found if len(found) <= 8 else [*found[:7], f"... ({len(found)})"])
