"""Comparing runs on the same samples: differences with intervals and p-values, as text, JSON and a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infini_eval.errors import ConfigError
from infini_eval.reports import compare_plot
from infini_eval.reports.model_facts import model_facts
from infini_eval.reports.numbers import number
from infini_eval.reports.pairing import RunScores, pair, read_scores
from infini_eval.reports.plot_style import short_tokens
from infini_eval.reports.statistics.paired import PairedDifference, holm, paired_difference
from infini_eval.reports.statistics.scored import depth_groups
from infini_eval.reports.summary import to_text
from infini_eval.results.files import write_atomically

if TYPE_CHECKING:
    pass

ENOUGH_CLUSTERS = 6  # flipping the signs of five gives no p-value below 2 / 2**5
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_SURE = 0.05


def compare_runs(folders: Sequence[str | Path]) -> dict[str, Any]:
    """Compare every further run with the first, paired on samples; the result is JSON-ready.

    ConfigError for fewer than two runs, DataError where runs were not made on the same data.
    """
    if not 2 <= len(folders) <= len(LETTERS):
        raise ConfigError(f"{len(folders)} run folder(s) given", valid=f"2 to {len(LETTERS)} run folders")
    runs = [read_scores(Path(folder)) for folder in folders]
    made = [_compare(runs[0], run, LETTERS[place]) for place, run in enumerate(runs[1:], 1)]
    adjusted = holm([comparison["overall"]["p"] for comparison in made])
    for comparison, p in zip(made, adjusted, strict=True):
        comparison["overall"]["p_holm"] = number(p, 9)
        comparison["conclusion"] = _conclusion(comparison)
    return {"schema_version": 1, "runs": [_run(run, LETTERS[i]) for i, run in enumerate(runs)], "comparisons": made}


def write(found: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write compare.json, compare.txt and plots/compare.png with its CSV; returns what was written."""
    write_atomically(folder / "compare.json", to_text(found).encode())
    write_atomically(folder / "compare.txt", (render(found) + "\n").encode("utf-8", "replace"))
    return [folder / "compare.json", folder / "compare.txt", *compare_plot.write(found, folder)]


def render(found: Mapping[str, Any]) -> str:
    """The comparison as text."""
    lines = ["=" * 70, "PAIRED COMPARISON", "=" * 70]
    for run in found["runs"]:
        lines.append(f"{run['letter']}: {run['folder']}  {run['model']}, {run['settings']}")
    for comparison in found["comparisons"]:
        lines += ["", *_comparison_lines(comparison, several=len(found["comparisons"]) > 1)]
    return "\n".join(lines)


def _compare(a: RunScores, b: RunScores, letter: str) -> dict[str, Any]:
    at_a, at_b, notes = pair(a, b)
    first, second = a.scored.where(at_a), b.scored.where(at_b)
    overall = _difference(first, second)
    if overall["clusters"] == 1:
        notes.append("all samples stand in one haystack: no test, for nothing is known about others")
    elif overall["clusters"] and overall["clusters"] < ENOUGH_CLUSTERS:
        notes.append(f"with {overall['clusters']} haystacks no difference can reach p < 0.05: evaluate on more of them")
    lengths = [
        first.length == length if length is not None else first.length != first.length for length in first.lengths()
    ]
    by_length = [
        {"context_length": number(length), **_difference(first.where(mask), second.where(mask))}
        for length, mask in zip(first.lengths(), lengths, strict=True)
    ]
    return {
        "a": "A",
        "b": letter,
        "notes": notes,
        "overall": overall,
        "by_context_length": by_length,
        "by_depth": _by_depth(first, second),
    }


def _difference(a: Any, b: Any) -> dict[str, Any]:
    return _json(paired_difference(depth_groups(a)[1], a.correct, b.correct, a.cluster))


def _by_depth(a: Any, b: Any) -> list[dict[str, Any]]:
    depths, group, _ = depth_groups(a)
    found = []
    for index, depth in enumerate(depths):
        mask = group == index
        one = paired_difference(group[mask] * 0, a.correct[mask], b.correct[mask], a.where(mask).cluster)
        found.append({"depth_percent": number(depth), **_json(one)})
    return found


def _json(found: PairedDifference) -> dict[str, Any]:
    percent = ("a", "b", "difference", "low", "high")
    values = asdict(found)
    return {
        key: value if key == "test" or value is None else number(100 * value if key in percent else value, 9)
        for key, value in values.items()
    }


def _conclusion(comparison: Mapping[str, Any]) -> str:
    overall, b = comparison["overall"], comparison["b"]
    p = overall["p_holm"]
    if p is None:
        ends = f"[{overall['low']:+.1f}, {overall['high']:+.1f}]"
        return f"on this haystack only: {b} - A is {overall['difference']:+.1f} points, 95 % interval {ends}"
    if p >= _SURE or overall["low"] <= 0 <= overall["high"]:
        return f"no clear difference between A and {b}"
    word = "better" if overall["difference"] > 0 else "worse"
    return f"{b} is {word} than A by {abs(overall['difference']):.1f} points"


def _comparison_lines(comparison: Mapping[str, Any], *, several: bool) -> list[str]:
    b, overall = comparison["b"], comparison["overall"]
    lines = [
        f"{b} against A, paired on {overall['n']} samples ({overall['test']})",
        f"{'':>12} {'A':>8} {b:>8} {b + ' - A':>8}   {'95% interval':<16} {'p':>9}   only A / only {b} right",
    ]
    lines.append(_row("all", overall))
    if len(comparison["by_context_length"]) > 1:
        lines += [_row(short_tokens(row["context_length"]), row) for row in comparison["by_context_length"]]
    adjusted = f" (p by Holm {_p(overall['p_holm'])})" if several and overall["p_holm"] is not None else ""
    lines.append(f"Conclusion: {comparison['conclusion']}{adjusted}")
    return [*lines, *(f"- {note}" for note in comparison["notes"])]


def _row(name: str, row: Mapping[str, Any]) -> str:
    interval = f"[{row['low']:+.1f}, {row['high']:+.1f}]"
    values = f"{row['a']:>7.2f}% {row['b']:>7.2f}% {row['difference']:>+8.2f}"
    return f"{name:>12} {values}   {interval:<16} {_p(row['p']):>9}   {row['only_a']} / {row['only_b']}"


def _p(value: float | None) -> str:
    if value is None:
        return "no test"
    return f"{value:.4f}" if value >= 0.0001 else "<0.0001"


def _run(run: RunScores, letter: str) -> dict[str, Any]:
    facts = model_facts(run.records.manifest)
    settings = [f"memory {facts.memory}"] if facts.memory else []
    settings += [f"{len(run.scored)} samples"]
    return {"letter": letter, "folder": str(run.folder), "model": facts.name, "settings": ", ".join(settings)}
