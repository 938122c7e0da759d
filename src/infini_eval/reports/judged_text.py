"""The report of a judged run as text: the summary in, words out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from infini_eval.reports.model import QuestionSummary
from infini_eval.reports.model_facts import one_line

WIDTH = 70
BAR = 20
SHOWN = 10
_SIDES = (("question", "question"), ("official", "official"), ("answer", "answer"))
Part = Mapping[str, Any]


def render(summary: QuestionSummary, *, ascii_only: bool) -> str:
    """Head, what must be known before the numbers, one block a judge, agreement, wrong answers."""
    lines = ["=" * WIDTH, f"AA-LCR: {summary.model}", "=" * WIDTH, _data_line(summary), *warnings(summary)]
    for judge in summary.judges:
        lines += ["", *_judge_lines(judge, "#" if ascii_only else "█")]
    if not summary.judges:
        lines += ["", f"{not_judged(summary).capitalize()}: infini-eval judge RUN --backend BACKEND --model JUDGE"]
    if summary.metrics:
        lines += ["", "METRICS", *metric_lines(summary.metrics)]
    if summary.agreement:
        lines += ["", "AGREEMENT OF JUDGES", *(agreement_line(found) for found in summary.agreement)]
    if summary.judges and summary.wrong:
        lines += ["", *_wrong_lines(summary.wrong)]
    return "\n".join(lines)


def one_line_of(judge: Part) -> str:
    """ "Accuracy: 26.0% ..." of one judge, with what is not counted and what makes it incomparable."""
    by = f"(judge {judge['model']}, protocol {judge['protocol']})"
    if judge["deviations"]:
        by += f"; DEVIATION: {', '.join(judge['deviations'])}"
    left = f"; not counted: {counted}" if (counted := _not_counted(judge)) else ""
    if judge["accuracy"] is None:
        return f"Accuracy: no verdict yet{left} {by}"
    return (
        f"Accuracy: {judge['accuracy']:.1f}%  n={judge['n']} answers to {judge['questions']} questions, "
        f"95% interval {judge['ci_low']:.1f} to {judge['ci_high']:.1f}{left} {by}"
    )


def not_judged(summary: QuestionSummary) -> str:
    """The line of a run without a judge."""
    failed = f"; {summary.failed} of {summary.answers} answers failed" if summary.failed else ""
    return f"not judged yet{failed}"


def warnings(summary: QuestionSummary) -> list[str]:
    """What must be known beside any accuracy."""
    found = []
    if summary.complete is False:
        found.append(f"INCOMPLETE: {summary.answers} of {summary.planned} planned answers")
    if summary.failed:
        counted = "count as wrong" if summary.failed_as_wrong else "are not counted"
        found.append(f"{summary.failed} answer(s) failed and {counted}: {'; '.join(summary.failures)}")
    if summary.duplicates:
        found.append(f"{summary.duplicates} row(s) that repeat another exactly are counted once")
    if summary.left_out:
        listed = ", ".join(summary.left_out)
        found.append(f"{len(summary.left_out)} question(s) were left out for missing documents: {listed}")
    if summary.cut_off:
        found.append(f"{summary.cut_off} answer(s) were cut off by --max-new-tokens, perhaps before their end")
    if summary.deviation:
        kinds = [*summary.deviations, *(kind for judge in summary.judges for kind in judge["deviations"])]
        found.append(f"DEVIATION: {', '.join(dict.fromkeys(kinds))}; do not compare with published scores")
    if summary.repeats > 1 and summary.identical_repeats:
        found.append(f"{summary.identical_repeats} question(s) got the same words in every repeat")
    if len({judge["protocol"] for judge in summary.judges}) > 1:
        found.append("judged by several protocols: their accuracies are not comparable")
    return [f"! {line}" for line in found]


def metric_lines(metrics: Mapping[str, Any]) -> list[str]:
    """What was measured beside the verdicts, a line each."""
    lines = []
    if found := metrics.get("perplexity"):
        values = "not measured" if found["median"] is None else (
            f"geometric mean {found['geometric_mean']:.4g}, median {found['median']:.4g}"
        )  # fmt: skip
        lines.append(f"perplexity of the official answer given the documents: {values} (n={found['n']})")
    if (found := metrics.get("steps")) and found["n"]:
        lines.append(
            f"numbered steps in an answer: mean {found['mean']:.1f}, median {found['median']:g}, at most {found['most']}; "
            f"a final answer on a line of its own in {found['final_answer_lines']} of {found['n']}"
        )
    return lines


def agreement_line(found: Part) -> str:
    """How far two judges agree, and who is milder."""
    if not found["n"]:
        return f"{found['a']} and {found['b']}: no answer was judged by both"
    kappa = "not defined" if found["kappa"] is None else f"{found['kappa']:.2f}"
    return (
        f"{found['a']} and {found['b']} ({found['protocol']}): {found['share']:.1f}% of {found['n']} answers, 95% interval "
        f"{found['ci_low']:.1f} to {found['ci_high']:.1f}, kappa {kappa}; CORRECT only by the first "
        f"{found['only_a']}, only by the second {found['only_b']}"
    )


def _data_line(summary: QuestionSummary) -> str:
    prompt, revision = summary.prompt or "unknown", summary.data_revision or "unknown"
    return (
        f"{summary.questions} questions, {summary.repeats} repeat(s), {summary.answers} answers; "
        f"prompt {prompt}, data {revision}"
    )


def _judge_lines(judge: Part, block: str) -> list[str]:
    counts = judge["counts"]
    notes = "" if judge["protocol"] != "v1.1" else f", grading notes {judge['grading_notes'] or 'in our wording'}"
    lines = [f"JUDGE {judge['name']}: {judge['model']}, protocol {judge['protocol']}{notes}", one_line_of(judge)]
    if judge["ci_method"]:
        lines.append(f"  interval: {judge['ci_method']}")
    lines.append(
        f"  right {counts['right']}, wrong {counts['wrong']}, empty {counts['empty']} (wrong without a call); "
        f"not counted: {_not_counted(judge) or 'none'}"
    )
    if judge["bounds"]:
        ends = judge["bounds"]
        lines.append(f"  with those {ends['open']} all wrong {ends['low']:.1f}%, all right {ends['high']:.1f}%")
    if len(judge["per_repeat"]) > 1:
        values = [_percent(row["accuracy"]) for row in judge["per_repeat"]]
        lines.append(
            f"  by repeat: {', '.join(values)}; pass@1 is the mean over questions of their share of right repeats"
        )
    lines += _table("category", judge["by_category"], block)
    lines += _table("tokens", judge["by_length"], block)
    for row in judge["unparsed"][:SHOWN]:
        lines.append(
            f"  unparsed, question {row['question_id']} repeat {row['repeat']}: {one_line(repr(row['raw']), 160)}"
        )
    return [*lines, *(f"  judge failed: {one_line(error)}" for error in judge["errors"])]


def _not_counted(judge: Part) -> str:
    return ", ".join(f"{n} {state}" for state, n in judge["not_counted"].items())


def _table(title: str, rows: Sequence[Part], block: str) -> list[str]:
    width = max(12, *(len(row["name"]) for row in rows))
    lines = [f"  {title:<{width}} {'':<{BAR}} accuracy  95% interval    right / n"]
    for row in rows:
        if row["accuracy"] is None:
            lines.append(f"  {row['name']:<{width}} {'':<{BAR}}        -  nothing judged")
            continue
        drawn = block * round(BAR * row["accuracy"] / 100)
        ends = f"{row['ci_low']:.1f} to {row['ci_high']:.1f}"
        right = f"{row['correct']:g} / {row['n']}"
        lines.append(f"  {row['name']:<{width}} {drawn:<{BAR}} {row['accuracy']:>7.1f}%  {ends:<14}  {right}")
    return lines


def _wrong_lines(rows: Sequence[Part]) -> list[str]:
    lines = [
        f"NOT CALLED CORRECT BY EVERY JUDGE ({len(rows)}" + (f", the first {SHOWN})" if len(rows) > SHOWN else ")")
    ]
    for row in rows[:SHOWN]:
        lines.append(f"question {row['question_id']}, repeat {row['repeat']} ({row['category'] or 'no category'})")
        lines += [f"  {name:<9} {one_line(row[key], 300)}" for name, key in _SIDES]
        lines += [f"  {'verdict':<9} {verdict['judge']}: {verdict_text(verdict)}" for verdict in row["verdicts"]]
    return lines


def verdict_text(verdict: Part) -> str:
    """ "wrong (INCORRECT)": the state, and the judge's own words where it said any."""
    raw = verdict["raw"]
    return verdict["state"] if not raw else f"{verdict['state']} ({one_line(raw.strip(), 120)})"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}%"
