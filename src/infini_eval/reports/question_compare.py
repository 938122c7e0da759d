"""Judged runs against each other: the same questions, the same judge, one protocol; differences with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from infini_eval.errors import ConfigError, DataError
from infini_eval.reports.model_facts import one_line
from infini_eval.reports.numbers import number
from infini_eval.reports.question_verdicts import Judge, read_judges
from infini_eval.reports.questions import one_protocol
from infini_eval.reports.statistics.judged import Answer, pass_at_1
from infini_eval.reports.statistics.paired import holm, paired_difference
from infini_eval.reports.summary import to_text
from infini_eval.results.files import write_atomically
from infini_eval.results.generations import Generations, read_generations

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
PERCENT = ("a", "b", "difference", "low", "high")


def compare_questions(sources: Sequence[str | Path]) -> dict[str, Any]:
    """Every further run against the first, for each judge that judged them all; JSON-ready, accuracies in percent.

    ConfigError for fewer than two runs; DataError for different protocols, prompts or data, or without a common judge.
    """
    if not 2 <= len(sources) <= len(LETTERS):
        raise ConfigError(f"{len(sources)} run(s) given", valid=f"2 to {len(LETTERS)} runs")
    runs = [read_generations(Path(source)) for source in sources]
    judges = [{judge.name: judge for judge in read_judges(run)} for run in runs]
    _refuse_different(runs)
    common = [name for name in judges[0] if all(name in own for own in judges)]
    if not common:
        one_protocol([judge for own in judges for judge in own.values()])
        listed = "; ".join(f"{run.source}: {', '.join(own) or 'none'}" for run, own in zip(runs, judges, strict=True))
        raise DataError(
            f"no judge has judged all of these runs ({listed})",
            next_step="judge all of them alike: infini-eval judge RUN …",
        )
    head = [
        {"letter": LETTERS[i], "source": str(run.source), "model": one_line(run.model)} for i, run in enumerate(runs)
    ]
    tables = [_table(name, runs, [own[name] for own in judges]) for name in common]
    return {"schema_version": 1, "task": "aa_lcr", "runs": head, "tables": tables}


def render(found: Mapping[str, Any]) -> str:
    """The comparison as text."""
    lines = ["=" * 70, "AA-LCR COMPARISON", "=" * 70]
    lines += [f"{run['letter']}: {run['source']}  {run['model']}" for run in found["runs"]]
    for table in found["tables"]:
        lines += ["", f"JUDGE {table['judge']}, protocol {table['protocol']}"]
        for row in table["rows"]:
            ends = f"95% interval {row['ci_low']:.1f} to {row['ci_high']:.1f}"
            lines.append(f"{row['letter']}  {row['accuracy']:>5.1f}%  {ends}  ({row['n']} answers)")
        for pair in table["comparisons"]:
            lines.append(
                f"{pair['letter']} - A: {pair['difference']:+.1f} points, "
                f"95% interval [{pair['low']:+.1f}, {pair['high']:+.1f}], "
                f"{_p(pair)}, {pair['n']} questions"
            )
    return "\n".join(lines)


def _p(pair: Mapping[str, Any]) -> str:
    if pair["p"] is None:
        return str(pair["test"])
    return f"p {pair['p']:.4f} (Holm {pair['p_holm']:.4f}; {pair['test']})"


def write(found: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write compare.json and compare.txt; returns what was written."""
    write_atomically(folder / "compare.json", to_text(found).encode())
    write_atomically(folder / "compare.txt", (render(found) + "\n").encode("utf-8", "replace"))
    return [folder / "compare.json", folder / "compare.txt"]


def _refuse_different(runs: Sequence[Generations]) -> None:
    for name in ("prompt", "revision"):
        values = sorted({str(run.settings.get(name)) for run in runs})
        if len(values) > 1:
            raise DataError(f"the runs differ in their {name}: {', '.join(values)}", valid=f"runs with one {name}")


def _table(name: str, runs: Sequence[Generations], judges: Sequence[Judge]) -> dict[str, Any]:
    scores = [_by_question(run, judge) for run, judge in zip(runs, judges, strict=True)]
    rows = [
        {"letter": LETTERS[i], **_accuracy(run, judge)} for i, (run, judge) in enumerate(zip(runs, judges, strict=True))
    ]
    pairs = [{"letter": LETTERS[i], **_difference(scores[0], own)} for i, own in enumerate(scores[1:], 1)]
    for pair, p in zip(pairs, holm([pair["p"] for pair in pairs]), strict=True):
        pair["p_holm"] = number(p, 9)
    return {"judge": name, "protocol": one_protocol(judges), "rows": rows, "comparisons": pairs}


def _accuracy(run: Generations, judge: Judge) -> dict[str, Any]:
    answers = [Answer(one.question_id, one.document_set, judge.value(one)) for one in run.items]
    found = pass_at_1(answers)
    if found is None:
        raise DataError(f"{judge.name} has given no verdict on {run.source} yet", next_step="run its command again")
    values = (found.value, found.low, found.high)
    accuracy, low, high = (number(100 * value) for value in values)
    n = sum(answer.value is not None for answer in answers)
    return {"accuracy": accuracy, "ci_low": low, "ci_high": high, "n": n}


Scores = dict[tuple[str, str], tuple[float, str | None]]


def _by_question(run: Generations, judge: Judge) -> Scores:
    """Mean score and document set of each question, which its id and its words name together."""
    values: dict[tuple[str, str], list[float]] = {}
    sets: dict[tuple[str, str], str | None] = {}
    for one in run.items:
        value, key = judge.value(one), (one.question_id, one.question)
        if value is not None:
            values.setdefault(key, []).append(value)
            sets[key] = one.document_set
    return {key: (sum(each) / len(each), sets[key]) for key, each in values.items()}


def _difference(a: Scores, b: Scores) -> dict[str, Any]:
    import numpy as np

    keys = [key for key in a if key in b]
    if not keys:
        raise DataError("the runs have no judged question in common", valid="runs of the same questions")
    first, second = (np.array([scores[key][0] for key in keys]) for scores in (a, b))
    sets = [a[key][1] for key in keys]
    cluster = None if None in sets else np.unique([str(name) for name in sets], return_inverse=True)[1]
    found = asdict(paired_difference(np.zeros(len(keys), np.int64), first, second, cluster))
    found["test"] = found["test"].replace("haystack", "document set")
    return {k: v if k == "test" else number(100 * v if k in PERCENT else v, 9) for k, v in found.items()}
