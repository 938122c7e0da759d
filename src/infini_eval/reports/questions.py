"""The report of a judged run: questions instead of depths, one judge's verdicts beside another's, wrong answers shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from infini_eval.errors import DataError
from infini_eval.reports import question_page, question_text
from infini_eval.reports.model_facts import one_line
from infini_eval.reports.numbers import number
from infini_eval.reports.question_verdicts import Judge, read_judges
from infini_eval.reports.statistics.intervals import wilson
from infini_eval.reports.statistics.judged import Answer, agreement, band, band_width, bounds, pass_at_1
from infini_eval.reports.summary import to_text
from infini_eval.reports.terminal import terminal_shows_bars
from infini_eval.results.files import write_atomically
from infini_eval.results.generations import Generation, Generations, read_generations

SUMMARY, REPORT = "summary.json", "report.txt"
SCHEMA_VERSION = 1
Pairs = Sequence[tuple[Generation, float | None]]


@dataclass(frozen=True)
class AnalysedQuestions:
    """A judged run as its report sees it: answers, judges, the summary (JSON-ready), the text."""

    folder: Path
    generations: Generations
    judges: tuple[Judge, ...]
    summary: dict[str, Any]
    text: str

    @property
    def line(self) -> str:
        """One line a judge."""
        lines = [question_text.one_line_of(judge) for judge in self.summary["judges"]]
        return "\n".join(lines) or question_text.not_judged(self.summary)

    def line_of(self, judge: str) -> str:
        """The line of one judge by name."""
        found = [question_text.one_line_of(one) for one in self.summary["judges"] if one["name"] == judge]
        return found[0] if found else self.line

    def write(self, folder: Path | None = None) -> list[Path]:
        """Write summary.json and report.txt; beside the verdicts where the answers came from a JSON file."""
        return write(self, self._place(folder))

    def write_page(self, folder: Path | None = None) -> list[Path]:
        """Write report.html."""
        return question_page.write(self, self._place(folder))

    def _place(self, folder: Path | None) -> Path:
        if folder is not None:
            return folder
        return self.folder if self.folder.is_dir() else self.generations.judges_folder


def write(run: AnalysedQuestions, folder: Path) -> list[Path]:
    """Write summary.json and report.txt into `folder`; returns what was written."""
    write_atomically(folder / SUMMARY, to_text(run.summary).encode())
    write_atomically(folder / REPORT, (run.text + "\n").encode("utf-8", "replace"))
    return [folder / SUMMARY, folder / REPORT]


def analyze_questions(
    source: Path, *, ascii_only: bool | None = None, failed_as_wrong: bool = False
) -> AnalysedQuestions:
    """Read answers and verdicts; nothing is written. DataError where there are no answers."""
    generations = read_generations(source)
    judges = read_judges(generations, failed_as_wrong=failed_as_wrong)
    made = summarise(generations, judges, failed_as_wrong=failed_as_wrong)
    made["wrong"] = _wrong(generations, judges)
    plain = not terminal_shows_bars() if ascii_only is None else ascii_only
    return AnalysedQuestions(source, generations, tuple(judges), made, question_text.render(made, ascii_only=plain))


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


def summarise(generations: Generations, judges: Sequence[Judge], *, failed_as_wrong: bool = False) -> dict[str, Any]:
    """Everything the report says, as numbers; accuracies and intervals in percent."""
    items = generations.items
    deviations = _deviations(generations)
    return {
        "schema_version": SCHEMA_VERSION,
        "task": "aa_lcr",
        "model": one_line(generations.model),
        "prompt": generations.settings.get("prompt"),
        "deviation": bool(deviations or any(judge.deviations for judge in judges)),
        "deviations": deviations,
        "data_revision": generations.settings.get("revision"),
        "left_out": generations.settings.get("left_out") or [],
        "questions": len({one.question_key for one in items}),
        "repeats": max(one.repeat for one in items),
        "answers": len(items),
        "duplicates": generations.duplicates,
        "planned": generations.planned,
        "complete": None if generations.planned is None else len(items) >= generations.planned,
        "failed_as_wrong": failed_as_wrong,
        "failed": sum(one.status != "ok" for one in items),
        "failures": sorted({one_line(one.error or "no reason stored") for one in items if one.status != "ok"})[:10],
        "empty": sum(one.status == "ok" and not one.text.strip() for one in items),
        "cut_off": sum(one.finish_reason == "length" for one in items),
        "identical_repeats": _identical_repeats(items),
        "judges": [_judge(judge, items, deviations) for judge in judges],
        "agreement": [_agreement(a, b) for a, b in combinations(judges, 2) if a.protocol == b.protocol],
        "settings": dict(generations.settings),
    }


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


def _accuracy(pairs: Pairs) -> dict[str, Any]:
    """pass@1 in percent with its interval; `n` answers of so many questions."""
    found = pass_at_1([Answer(one.question_key, one.document_set, value) for one, value in pairs])
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
    answers = [Answer(one.question_key, one.document_set, judge.value(one)) for one in items]
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
