"""Judged runs (AA-LCR): questions instead of depths, judges beside each other, and runs compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from statistics import geometric_mean, mean, median
from typing import Any

from infini_eval.api import registry
from infini_eval.errors import ConfigError, DataError
from infini_eval.reports import judged_text
from infini_eval.reports.model import SCHEMA_VERSION, AnalysedRun, QuestionSummary, number, to_text
from infini_eval.reports.model_facts import one_line
from infini_eval.reports.statistics.intervals import wilson
from infini_eval.reports.statistics.judged import Answer, agreement, band, band_width, bounds, pass_at_1, question_means
from infini_eval.reports.statistics.paired import holm, paired_difference
from infini_eval.reports.text import terminal_shows_bars
from infini_eval.results.files import write_atomically
from infini_eval.tasks.aa_lcr.answers import Generation, Generations, read_generations
from infini_eval.tasks.aa_lcr.data import PERPLEXITY, STEPS
from infini_eval.tasks.aa_lcr.verdicts import Judge, read_judges

SUMMARY, REPORT = "summary.json", "report.txt"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
PERCENT = ("a", "b", "difference", "low", "high")
Pairs = Sequence[tuple[Generation, float | None]]


@dataclass(frozen=True)
class QuestionRun(AnalysedRun):
    """A judged run: its answers and its judges."""

    summary: QuestionSummary
    generations: Generations
    judges: tuple[Judge, ...]

    def line_of(self, judge: str) -> str:
        """The line of one judge by name."""
        found = [judged_text.one_line_of(one) for one in self.summary.judges if one["name"] == judge]
        return found[0] if found else self.line

    def write(self, folder: Path | None = None) -> list[Path]:
        """Write summary.json and report.txt; beside the verdicts where the answers came from a JSON file."""
        summary, report = self._place(folder) / SUMMARY, self._place(folder) / REPORT
        write_atomically(summary, to_text(self.summary).encode())
        write_atomically(report, (self.text + "\n").encode("utf-8", "replace"))
        return [summary, report]

    def write_page(self, folder: Path | None = None) -> list[Path]:
        """Write report.html."""
        written: list[Path] = registry.load("reports", "html")(self, self._place(folder))
        return written

    def _place(self, folder: Path | None) -> Path:
        if folder is not None:
            return folder
        return self.folder if self.folder.is_dir() else self.generations.judges_folder


def analyze_questions(source: Path, *, ascii_only: bool | None = None, failed_as_wrong: bool = False) -> QuestionRun:
    """Read answers and verdicts; nothing is written. DataError where there are no answers."""
    generations = read_generations(source)
    judges = read_judges(generations, failed_as_wrong=failed_as_wrong)
    summary = summarise(generations, judges, failed_as_wrong=failed_as_wrong)
    plain = not terminal_shows_bars() if ascii_only is None else ascii_only
    return QuestionRun(
        folder=source,
        summary=summary,
        text=judged_text.render(summary, ascii_only=plain),
        line="\n".join(map(judged_text.one_line_of, summary.judges)) or judged_text.not_judged(summary),
        generations=generations,
        judges=tuple(judges),
    )


def one_protocol(judges: Sequence[Judge]) -> str | None:
    """The protocol of judges that are to stand in one table; DataError where they follow different ones."""
    names = sorted({judge.protocol for judge in judges})
    if len(names) > 1:
        raise DataError(
            f"verdicts of the protocols {' and '.join(names)} cannot stand in one table: prompts and official answers "
            "differ, so the scores are not comparable",
            valid="judges of one protocol",
        )
    return names[0] if names else None


def summarise(generations: Generations, judges: Sequence[Judge], *, failed_as_wrong: bool = False) -> QuestionSummary:
    """Everything the report says, as numbers; accuracies and intervals in percent."""
    items = generations.items
    deviations = _deviations(generations)
    return QuestionSummary(
        schema_version=SCHEMA_VERSION,
        task="aa_lcr",
        model=one_line(generations.model),
        prompt=generations.settings.get("prompt"),
        deviation=bool(deviations or any(judge.deviations for judge in judges)),
        deviations=deviations,
        data_revision=generations.settings.get("revision"),
        left_out=generations.settings.get("left_out") or [],
        questions=len({one.question_key for one in items}),
        repeats=max(one.repeat for one in items),
        answers=len(items),
        duplicates=generations.duplicates,
        planned=generations.planned,
        complete=None if generations.planned is None else len(items) >= generations.planned,
        failed_as_wrong=failed_as_wrong,
        failed=sum(one.status != "ok" for one in items),
        failures=sorted({one_line(one.error or "no reason stored") for one in items if one.status != "ok"})[:10],
        empty=sum(one.status == "ok" and not one.text.strip() for one in items),
        cut_off=sum(one.finish_reason == "length" for one in items),
        identical_repeats=_identical_repeats(items),
        judges=[_judge(judge, items, deviations) for judge in judges],
        agreement=[_agreement(a, b) for a, b in combinations(judges, 2) if a.protocol == b.protocol],
        metrics=_metrics(generations),
        settings=dict(generations.settings),
        wrong=_wrong(generations, judges),
    )


def _metrics(generations: Generations) -> dict[str, Any] | None:
    """What `--option metrics=` asked for, over the answers that have it; None where nothing was asked for."""
    asked = generations.settings.get("metrics") or ()
    answered = [one for one in generations.items if one.status == "ok"]
    values = [one.perplexity for one in answered if one.perplexity]
    steps = [one.steps for one in answered]
    found: dict[str, Any] = {}
    if PERPLEXITY in asked:
        found[PERPLEXITY] = {
            "n": len(values),
            "geometric_mean": number(geometric_mean(values)) if values else None,
            "median": number(median(values)) if values else None,
        }
    if STEPS in asked:
        found[STEPS] = {
            "n": len(steps),
            "mean": number(mean(steps)) if steps else None,
            "median": number(median(steps)) if steps else None,
            "most": max(steps, default=None),
            "final_answer_lines": sum(one.ends_in_one_line for one in answered),
        }
    return found or None


def _deviations(generations: Generations) -> list[str]:
    """In what the answers depart from the data card."""
    prompt, from_urls = generations.settings.get("prompt"), generations.settings.get("documents_from_urls")
    found = [] if prompt in (None, "official") else [f"the {one_line(str(prompt))} prompt"]
    return found + ([f"{from_urls} document(s) from the web"] if from_urls else [])


def _judge(judge: Judge, items: Sequence[Generation], deviations: Sequence[str]) -> dict[str, Any]:
    pairs = list(zip(items, judge.values(items), strict=True))
    return {
        "name": judge.name,
        "model": one_line(judge.model),
        "protocol": judge.protocol,
        "grading_notes": judge.notes,
        "deviations": [*deviations, *judge.deviations],
        **_accuracy(pairs),
        "counts": judge.counts(items),
        "not_counted": judge.not_counted(items),
        "bounds": _bounds(judge, items),
        "unparsed": judge.unparsed(items),
        "errors": judge.errors(),
        "per_repeat": [_of_repeat(pairs, repeat) for repeat in sorted({one.repeat for one in items})],
        "by_category": _grouped(pairs, [one.category or "unknown" for one in items]),
        "by_length": _grouped(pairs, _bands(items)),
    }


def _answers(judge: Judge, items: Sequence[Generation]) -> list[Answer]:
    return _as_answers(items, judge.values(items))


def _as_answers(items: Sequence[Generation], values: Sequence[float | None]) -> list[Answer]:
    """What the statistics take: question, document set and value."""
    return [Answer(one.question_key, one.document_set, value) for one, value in zip(items, values, strict=True)]


def _accuracy(pairs: Pairs) -> dict[str, Any]:
    """pass@1 in percent with its interval; `n` answers of so many questions."""
    found = pass_at_1(_as_answers([one for one, _ in pairs], [value for _, value in pairs]))
    values = [value for _, value in pairs if value is not None]
    questions = len({one.question_key for one, value in pairs if value is not None})
    percent = (found.value, found.low, found.high) if found else (None, None, None)
    accuracy, low, high = (None if value is None else number(100 * value) for value in percent)
    return {
        "accuracy": accuracy, "ci_low": low, "ci_high": high, "ci_method": found.method if found else None,
        "correct": number(sum(values)), "n": len(values), "questions": questions,
    }  # fmt: skip


def _of_repeat(pairs: Pairs, repeat: int) -> dict[str, Any]:
    return {"repeat": repeat, **_accuracy([pair for pair in pairs if pair[0].repeat == repeat])}


def _grouped(pairs: Pairs, names: Sequence[str]) -> list[dict[str, Any]]:
    order = list(dict.fromkeys(sorted(names, key=_by_number)))
    groups = {name: [pair for pair, own in zip(pairs, names, strict=True) if own == name] for name in order}
    return [{"name": one_line(name), **_accuracy(members)} for name, members in groups.items()]


def _by_number(name: str) -> tuple[float, str]:
    """Bands by their lower end ("90k to 100k" before "100k to 110k"), other names by the alphabet."""
    first = name.split(" ")[0]
    digits = first.rstrip("k")
    return (float(digits) * (1000 if first.endswith("k") else 1) if digits.replace(".", "", 1).isdigit() else 0.0, name)


def _bands(items: Sequence[Generation]) -> list[str]:
    """Length bands by the data set's own count of tokens, else by the model's."""
    tokens = [one.input_tokens or one.prompt_tokens or 0 for one in items]
    width = band_width(tokens)
    return [band(count, width) if count else "unknown" for count in tokens]


def _bounds(judge: Judge, items: Sequence[Generation]) -> dict[str, Any] | None:
    """pass@1 if every answer that is not counted were wrong, or right; None where all are counted."""
    answers = _as_answers(items, [judge.value(one) for one in items])
    left = sum(answer.value is None for answer in answers)
    if not left:
        return None
    low, high = bounds(answers)
    return {"open": left, "low": number(100 * low), "high": number(100 * high)}


def _agreement(a: Judge, b: Judge) -> dict[str, Any]:
    found = agreement(a.said, b.said)
    low, high = wilson(found.same, found.n)
    return {
        "a": a.name, "b": b.name, "protocol": one_protocol((a, b)), "n": found.n, "same": found.same,
        "share": None if found.share is None else number(100 * found.share),
        "ci_low": number(100 * low), "ci_high": number(100 * high),
        "kappa": None if found.kappa is None else number(found.kappa),
        "both_right": found.both_right, "only_a": found.only_a, "only_b": found.only_b,
    }  # fmt: skip


def _identical_repeats(items: Sequence[Generation]) -> int:
    """Questions whose repeats are all the same words (greedy answers, or a cache): they say nothing new."""
    texts: dict[str, list[str]] = {}
    for one in items:
        texts.setdefault(one.question_key, []).append(one.text)
    return sum(len(each) > 1 and len(set(each)) == 1 for each in texts.values())


def _wrong(generations: Generations, judges: Sequence[Judge]) -> list[dict[str, Any]]:
    """Answers that some judge did not call CORRECT, with every judge's verdict; by question."""
    rows = []
    for one in generations.items:
        states = {judge.name: judge.state(one) for judge in judges}
        if one.status == "ok" and judges and any(state != "right" for state in states.values()):
            verdicts = [{"judge": judge.name, "state": states[judge.name], "raw": judge.raw(one)} for judge in judges]
            rows.append(
                {
                    "question_id": one.question_id, "repeat": one.repeat, "category": one.category,
                    "question": one.question, "official": one.answer, "answer": one.text, "verdicts": verdicts,
                }
            )  # fmt: skip
    return rows


def compare_questions(sources: Sequence[str | Path]) -> dict[str, Any]:
    """Every further run against the first, for each judge that judged them all; JSON-ready, accuracies in percent.

    ConfigError for fewer than two runs; DataError for different protocols, prompts or data, or without a common judge.
    """
    if not 2 <= len(sources) <= len(LETTERS):
        raise ConfigError(f"{len(sources)} run(s) given", valid=f"2 to {len(LETTERS)} runs")
    runs = [read_generations(Path(source)) for source in sources]
    judges = [{judge.name: judge for judge in read_judges(run)} for run in runs]
    _refuse_different(runs)
    by_words = not all(run.ids_given for run in runs)
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
    tables = [_comparison(name, runs, [own[name] for own in judges], by_words) for name in common]
    return {"schema_version": 1, "task": "aa_lcr", "runs": head, "tables": tables}


def comparison_text(found: Mapping[str, Any]) -> str:
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
                f"{_p_value(pair)}, {pair['n']} questions"
            )
    return "\n".join(lines)


def _p_value(pair: Mapping[str, Any]) -> str:
    """The p-value with its test, or why there is none."""
    return pair["test"] if pair["p"] is None else f"p {pair['p']:.4f} (Holm {pair['p_holm']:.4f}; {pair['test']})"


def write_comparison(found: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write compare.json and compare.txt; returns what was written."""
    write_atomically(folder / "compare.json", to_text(found).encode())
    write_atomically(folder / "compare.txt", (comparison_text(found) + "\n").encode("utf-8", "replace"))
    return [folder / "compare.json", folder / "compare.txt"]


def _refuse_different(runs: Sequence[Generations]) -> None:
    for name in ("prompt", "revision"):
        values = sorted({str(run.settings.get(name)) for run in runs})
        if len(values) > 1:
            raise DataError(f"the runs differ in their {name}: {', '.join(values)}", valid=f"runs with one {name}")


def _comparison(name: str, runs: Sequence[Generations], judges: Sequence[Judge], by_words: bool) -> dict[str, Any]:
    if len({judge.notes for judge in judges}) > 1:
        raise DataError(
            f"{name} has judged these runs by different grading notes: the scores are not comparable",
            next_step="judge all of them alike: infini-eval judge RUN … --notes FILE",
        )
    scores = [_by_question(run, judge, by_words) for run, judge in zip(runs, judges, strict=True)]
    rows = [
        {"letter": LETTERS[i], **_judged_accuracy(run, judge)}
        for i, (run, judge) in enumerate(zip(runs, judges, strict=True))
    ]
    pairs = [{"letter": LETTERS[i], **_difference(scores[0], own)} for i, own in enumerate(scores[1:], 1)]
    for pair, p in zip(pairs, holm([pair["p"] for pair in pairs]), strict=True):
        pair["p_holm"] = number(p, 9)
    return {"judge": name, "protocol": one_protocol(judges), "rows": rows, "comparisons": pairs}


def _judged_accuracy(run: Generations, judge: Judge) -> dict[str, Any]:
    found = pass_at_1(answers := _answers(judge, run.items))
    if found is None:
        raise DataError(f"{judge.name} has given no verdict on {run.source} yet", next_step="run its command again")
    values = (found.value, found.low, found.high)
    accuracy, low, high = (number(100 * value) for value in values)
    n = sum(answer.value is not None for answer in answers)
    return {"accuracy": accuracy, "ci_low": low, "ci_high": high, "n": n}


Scores = dict[str, tuple[float, str | None]]


def _by_question(run: Generations, judge: Judge, by_words: bool) -> Scores:
    """Mean score and document set of each question, which its id and its words name together, or its words alone."""
    answers = _answers(judge, run.items)
    if by_words:
        answers = [replace(answer, question=one.words) for answer, one in zip(answers, run.items, strict=True)]
    sets = {answer.question: answer.document_set for answer in answers}
    return {question: (mean, sets[question]) for question, mean in question_means(answers).items()}


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
