"""Comparing runs on the same samples: differences with intervals and p-values, as text, JSON and a plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infini_eval.api import registry
from infini_eval.errors import ConfigError, DataError
from infini_eval.reports.model import (
    ComparedRun,
    Comparison,
    Comparisons,
    DepthDifference,
    Difference,
    LengthDifference,
    OverallDifference,
    number,
    rounded,
    to_text,
)
from infini_eval.reports.model_facts import model_facts
from infini_eval.reports.plots import short_tokens, write_comparison_plot
from infini_eval.reports.statistics.paired import PairedDifference, holm, paired_difference
from infini_eval.reports.statistics.samples import Scored, depth_groups, scored_samples
from infini_eval.reports.summary import with_scores
from infini_eval.results.files import write_atomically
from infini_eval.results.manifest import differences
from infini_eval.results.reader import RunRecords, read_run

if TYPE_CHECKING:
    import numpy as np

ENOUGH_CLUSTERS = 6  # flipping the signs of five gives no p-value below 2 / 2**5
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_SURE = 0.05
_MODEL_SETTINGS = ("checkpoint", "ckpt", "model", "memory", "dtype", "backend", "tokenizer")
_KEYS = ("sample_key", "prompt_sha256")


def compare_runs(folders: Sequence[str | Path]) -> Comparisons:
    """Compare every further run with the first, paired on samples.

    ConfigError for fewer than two runs, DataError where runs were not made on the same data.
    """
    if not 2 <= len(folders) <= len(LETTERS):
        raise ConfigError(f"{len(folders)} run folder(s) given", valid=f"2 to {len(LETTERS)} run folders")
    return compare_scores([read_scores(Path(folder)) for folder in folders])


def compare_scores(runs: Sequence[RunScores]) -> Comparisons:
    """Compare every further run with the first; DataError where runs were not made on the same data."""
    comparisons = [_compare(runs[0], run, LETTERS[place]) for place, run in enumerate(runs[1:], 1)]
    adjusted = holm([comparison.overall.p for comparison in comparisons])
    return Comparisons(
        runs=tuple(_run(run, LETTERS[place]) for place, run in enumerate(runs)),
        comparisons=tuple(_concluded(*pair) for pair in zip(comparisons, adjusted, strict=True)),
    )


def write(comparisons: Comparisons, folder: Path) -> list[Path]:
    """Write compare.json, compare.txt and plots/compare.png with its CSV; returns what was written."""
    write_atomically(folder / "compare.json", to_text(comparisons).encode())
    write_atomically(folder / "compare.txt", (render(comparisons) + "\n").encode("utf-8", "replace"))
    return [folder / "compare.json", folder / "compare.txt", *write_comparison_plot(comparisons, folder)]


def render(comparisons: Comparisons) -> str:
    """The comparison as text."""
    lines = ["=" * 70, "PAIRED COMPARISON", "=" * 70]
    lines += [f"{run.letter}: {run.folder}  {run.model}, {run.settings}" for run in comparisons.runs]
    for comparison in comparisons.comparisons:
        lines += ["", *_comparison_lines(comparison, several=len(comparisons.comparisons) > 1)]
    return "\n".join(lines)


def _compare(a: RunScores, b: RunScores, letter: str) -> Comparison:
    at_a, at_b, notes = pair(a, b)
    first, second = a.scored.take(at_a), b.scored.take(at_b)
    overall = OverallDifference(**_difference(first, second))
    if overall.clusters == 1:
        notes.append("all samples stand in one haystack: no test, for nothing is known about others")
    elif overall.clusters and overall.clusters < ENOUGH_CLUSTERS:
        notes.append(f"with {overall.clusters} haystacks no difference can reach p < 0.05: evaluate on more of them")
    return Comparison("A", letter, tuple(notes), overall, _by_length(first, second), _by_depth(first, second), "")


def _difference(a: Scored, b: Scored) -> dict[str, Any]:
    return _percent(paired_difference(depth_groups(a)[1], a.correct, b.correct, a.cluster))


def _by_length(a: Scored, b: Scored) -> tuple[LengthDifference, ...]:
    rows = []
    for length in a.lengths():
        mask = a.length != a.length if length is None else a.length == length
        rows.append(LengthDifference(**_difference(a.where(mask), b.where(mask)), context_length=number(length)))
    return tuple(rows)


def _by_depth(a: Scored, b: Scored) -> tuple[DepthDifference, ...]:
    depths, group, _ = depth_groups(a)
    rows = []
    for index, depth in enumerate(depths):
        mask = group == index
        one = paired_difference(group[mask] * 0, a.correct[mask], b.correct[mask], a.where(mask).cluster)
        rows.append(DepthDifference(**_percent(one), depth_percent=rounded(depth)))
    return tuple(rows)


def _percent(difference: PairedDifference) -> dict[str, Any]:
    """The fields of a Difference: shares in percent."""
    percent = ("a", "b", "difference", "low", "high")
    return {
        key: value if key == "test" or value is None else number(100 * value if key in percent else value, 9)
        for key, value in asdict(difference).items()
    }


def _concluded(comparison: Comparison, p_holm: float | None) -> Comparison:
    """With the adjusted p-value, and what may be said in the end."""
    overall, b = replace(comparison.overall, p_holm=number(p_holm, 9)), comparison.b
    if overall.p_holm is None:
        ends = f"[{overall.low:+.1f}, {overall.high:+.1f}]"
        said = f"on this haystack only: {b} - A is {overall.difference:+.1f} points, 95 % interval {ends}"
    elif overall.p_holm >= _SURE or overall.low <= 0 <= overall.high:
        said = f"no clear difference between A and {b}"
    else:
        word = "better" if overall.difference > 0 else "worse"
        said = f"{b} is {word} than A by {abs(overall.difference):.1f} points"
    return replace(comparison, overall=overall, conclusion=said)


def _comparison_lines(comparison: Comparison, *, several: bool) -> list[str]:
    b, overall = comparison.b, comparison.overall
    lines = [
        f"{b} against A, paired on {overall.n} samples ({overall.test})",
        f"{'':>12} {'A':>8} {b:>8} {b + ' - A':>8}   {'95% interval':<16} {'p':>9}   only A / only {b} right",
    ]
    lines.append(_row("all", overall))
    if len(comparison.by_context_length) > 1:
        lines += [_row(short_tokens(row.context_length), row) for row in comparison.by_context_length]
    adjusted = f" (p by Holm {_p(overall.p_holm)})" if several and overall.p_holm is not None else ""
    lines.append(f"Conclusion: {comparison.conclusion}{adjusted}")
    return [*lines, *(f"- {note}" for note in comparison.notes)]


def _row(name: str, row: Difference) -> str:
    interval = f"[{row.low:+.1f}, {row.high:+.1f}]"
    values = f"{row.a:>7.2f}% {row.b:>7.2f}% {row.difference:>+8.2f}"
    return f"{name:>12} {values}   {interval:<16} {_p(row.p):>9}   {row.only_a} / {row.only_b}"


def _p(value: float | None) -> str:
    if value is None:
        return "no test"
    return f"{value:.4f}" if value >= 0.0001 else "<0.0001"


def _run(run: RunScores, letter: str) -> ComparedRun:
    facts = model_facts(run.records.manifest)
    settings = [f"memory {facts.memory}"] if facts.memory else []
    settings += [f"{len(run.scored)} samples"]
    return ComparedRun(letter, str(run.folder), facts.name, ", ".join(settings))


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
