"""What the browser of results shows, typed: one line of the list, a run, its samples, a comparison; JSON at the edge.

A run is a few files below `runs/ID/`: run.json, samples.json (one row a sample, in columns) and texts-N.json (the words of
CHUNK samples each, in the order of those rows). `RunFiles` makes them from an analysed run.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infini_eval.diagnosis.text import EVIDENCE, RATES
from infini_eval.reports.around import Around, Prompts, around_needles
from infini_eval.reports.judged import QuestionRun
from infini_eval.reports.model import (
    SCHEMA_VERSION,
    AnalysedRun,
    DepthRun,
    Number,
    QuestionSummary,
    Share,
    Summary,
    number,
    to_json,
)
from infini_eval.reports.model_facts import facts_of
from infini_eval.reports.plots import recorded_gates
from infini_eval.reports.statistics.failures import KINDS, error_kind
from infini_eval.reports.statistics.samples import depths_to_group_by
from infini_eval.reports.story import Story
from infini_eval.reports.text import places
from infini_eval.reports.track import step_of
from infini_eval.results.manifest import MANIFEST
from infini_eval.results.reader import RunRecords, read_run

if TYPE_CHECKING:
    import numpy as np

CHUNK = 500  # samples in one file of texts
LONGEST = 20_000  # characters of an answer, where nothing else is said
SHORT = 60  # characters of an answer in the list of samples
UNPARSED = 100  # replies of a judge that are no verdict
DIAGNOSIS = "diagnosis.json"


@dataclass(frozen=True)
class RunRow:
    """A line of the list of runs; `id` names the run in addresses. Accuracies in percent; `problem` where nothing can be read."""

    id: str
    name: str
    kind: str
    model: str
    task: str
    memory: str | None
    step: int | None
    lengths: tuple[int | None, ...]
    accuracy: Number | None
    ci_low: Number | None
    ci_high: Number | None
    samples: int
    failed: int
    date: str | None
    verdict: str
    problem: str | None = None


@dataclass(frozen=True)
class RunPage:
    """A run without its samples. `places`: accuracy by the place of needle and answer, for each length of the summary.

    `labels` are the words for keys of `kinds` of errors and of the diagnosis's evidence.
    """

    schema_version: int
    row: RunRow
    story: Story
    summary: Summary | QuestionSummary
    places: tuple[tuple[tuple[str, Share], ...], ...]
    gates: Sequence[Sequence[float]] | None
    diagnosis: Any
    labels: Mapping[str, Mapping[str, str]]
    segment_length: int | None


@dataclass(frozen=True)
class SampleTable:
    """The samples that are listed, in columns of one length; `total` is how many the run has.

    texts: the words of the rows with these places in the columns.
    """

    total: int
    columns: Mapping[str, Sequence[Any]]
    texts: Callable[[Sequence[int]], list[dict[str, Any]]]

    def __len__(self) -> int:
        return len(self.columns["key"])

    def to_json(self) -> dict[str, Any]:
        """The content of samples.json."""
        return {"total": self.total, "chunk": CHUNK, "columns": dict(self.columns)}


def run_row(run: AnalysedRun, identity: str, name: str) -> RunRow:
    """The line of an analysed run."""
    if isinstance(run, QuestionRun):
        return _question_row(run, identity, name)
    assert isinstance(run, DepthRun)
    summary, manifest = run.summary, run.records.manifest or {}
    facts, stats, step = facts_of(summary), summary.summary_stats, step_of(manifest)
    return RunRow(
        id=identity, name=name, kind="depths", model=summary.model, task=facts.task, memory=facts.memory,
        step=step[1] if step else None,
        lengths=tuple(block.context_length for block in summary.by_context_length),
        accuracy=stats.average_accuracy, ci_low=stats.average_ci_low, ci_high=stats.average_ci_high,
        samples=summary.total_samples, failed=summary.failed, date=_date(manifest), verdict=summary.headline.words,
    )  # fmt: skip


def unread_row(identity: str, name: str, problem: str) -> RunRow:
    """The line of a folder that cannot be reported on."""
    return RunRow(identity, name, "unread", "", "", None, None, (), None, None, None, 0, 0, None, "", problem)


def run_page(run: AnalysedRun, row: RunRow) -> RunPage:
    """Everything of a run but its samples."""
    found = _json_object(run.folder / DIAGNOSIS)
    labels = {"kinds": KINDS, "evidence": EVIDENCE, "rates": RATES}
    if isinstance(run, QuestionRun):
        story, summary = Story.of_questions(run.summary), _without_words(run.summary)
        return RunPage(SCHEMA_VERSION, row, story, summary, (), None, None, labels, None)
    assert isinstance(run, DepthRun)
    blocks, gates = run.summary.by_context_length, recorded_gates(run.summary.run.model)
    return RunPage(
        SCHEMA_VERSION, row, Story.of(run.summary), run.summary, tuple(tuple(places(block)) for block in blocks),
        gates, found, labels, run.summary.segment_length,
    )  # fmt: skip


def _without_words(summary: QuestionSummary) -> QuestionSummary:
    """Without the answers, which stand in the files of texts, and with some replies of each judge that are no verdict."""
    judges = [
        {**judge, "unparsed": [one | {"raw": _cut(one["raw"], 400)} for one in judge["unparsed"][:UNPARSED]]}
        for judge in summary.judges
    ]
    return replace(summary, wrong=(), judges=judges)


class RunFiles:
    """The files of a run, each made when it is asked for.

    Args:
        limit: of more samples an even selection is listed.
        longest: characters of an answer, of a judge's reply and the like.
    """

    def __init__(self, run: AnalysedRun, row: RunRow, limit: int, longest: int = LONGEST) -> None:
        self.run, self.row, self.limit, self.longest = run, row, limit, longest

    @functools.cached_property
    def table(self) -> SampleTable:
        return sample_table(self.run, self.limit, self.longest)

    def names(self) -> list[str]:
        """The names of all files, which stand in runs/ID/."""
        return ["run.json", "samples.json", *(f"texts-{at}.json" for at in range(-(-len(self.table) // CHUNK)))]

    def content(self, name: str) -> Any:
        """The content of a file, JSON-ready; None where there is no such file."""
        if name == "run.json":
            return to_json(run_page(self.run, self.row))
        if name == "samples.json":
            return self.table.to_json()
        number = re.fullmatch(r"texts-(\d{1,9})\.json", name)
        start = int(number[1]) * CHUNK if number else len(self.table)
        return self.table.texts(range(start, min(start + CHUNK, len(self.table)))) if start < len(self.table) else None

    def all(self) -> dict[str, Any]:
        """Every file by its path."""
        return {f"runs/{self.row.id}/{name}": self.content(name) for name in self.names()}


def sample_table(run: AnalysedRun, limit: int, longest: int = LONGEST) -> SampleTable:
    """The samples of a run, at most `limit`: of more, an even selection over cells, three not right ones to each right one."""
    if isinstance(run, QuestionRun):
        return _answers_table(run, limit, longest)
    assert isinstance(run, DepthRun)
    return _DepthSamples(run, limit, longest).table()


class _DepthSamples:
    """The samples of a run with depths: which are listed, in what order, and their words."""

    def __init__(self, run: DepthRun, limit: int, longest: int) -> None:
        import numpy as np

        records = run.records
        self.run, self.records, self.longest = run, records, longest
        depth = depths_to_group_by(records)
        if run.summary.depths_rounded_to_5_percent:
            depth = np.round(depth / 5) * 5
        length, correct = records.number("context_length"), records.number("correct")
        order = np.lexsort((np.arange(len(records)), depth, length))
        cell = np.unique(
            np.stack([np.nan_to_num(length, nan=-1), np.nan_to_num(depth, nan=-1)]), axis=1, return_inverse=True
        )
        kept = chosen(cell[1].reshape(-1), correct >= 1, limit)
        self.rows = order[kept[order]]
        self.length, self.depth, self.correct = length, depth, correct
        self.stored = _stored(run)
        self.place = _places_in(self.stored, records)
        self.prompts: Prompts | None = None

    def table(self) -> SampleTable:
        rows, text = self.rows, self.records.texts
        answers, said = text("answer", rows), text("generation_text", rows)
        excerpts, sources = self._stored("excerpt", rows), text("number_from", rows)
        kinds = [
            self._kind(value, *words)
            for value, *words in zip(self.correct[rows], answers, said, excerpts, sources, strict=True)
        ]
        names = list(KINDS)
        columns: dict[str, Sequence[Any]] = {
            "key": self.keys(rows),
            "id": [_short(value) for value in self._stored("id", rows)],
            "length": _numbers(self.length[rows]),
            "depth": _numbers(self.depth[rows]),
            "correct": _numbers(self.correct[rows]),
            "kind": [None if kind is None else names.index(kind) for kind in kinds],
            "compressions": _numbers(self.records.number("compressions")[rows]),
            "answer": [_short(value) for value in answers],
            "said": [_short(value) for value in said],
        }
        return SampleTable(len(self.records), columns, self.texts)

    def keys(self, rows: np.ndarray) -> list[str]:
        """The key of each sample, which names it in addresses; of records without one the row's number."""
        found = self.records.texts("sample_key", rows)
        return [key or f"row{row}" for key, row in zip(found, rows.tolist(), strict=True)]

    def texts(self, places: Sequence[int]) -> list[dict[str, Any]]:
        rows = self.rows[list(places)]
        text, numbers = self.records.texts, {name: _numbers(self.records.number(name)[rows]) for name in _NUMBERS}
        words = {
            name: text(name, rows) for name in ("answer", "generation_text", "extracted", "error", "finish_reason")
        }
        own = {name: self._stored(name, rows) for name in ("id", "excerpt", "prompt_sha256")}
        scores = {name: _numbers(self.records.number(name)[rows]) for name in self._scorers()}
        if self.prompts is None:
            everything = self._stored("prompt_sha256", self.rows)
            self.prompts = _prompts(self.records, {sha for sha in everything if sha})
        made = []
        for at, key in enumerate(self.keys(rows)):
            around = self.prompts.found.get(own["prompt_sha256"][at] or "")
            long = {name: _cut(words[name][at], self.longest) for name in words}
            one = {
                "key": key,
                "id": _cut(own["id"][at], self.longest),
                **long,
                "excerpt": _cut(own["excerpt"][at], self.longest),
                "around": to_json(around),
            }
            one["no_text"] = None if around else self.prompts.missing or "the record does not say which prompt it was"
            one |= {name: values[at] for name, values in numbers.items()}
            made.append(one | {"scores": {name: values[at] for name, values in scores.items()}})
        return made

    def _scorers(self) -> list[str]:
        return [name for name in self.records.scorers if name in self.records.present]

    def _stored(self, name: str, rows: np.ndarray) -> list[str | None]:
        """A text column of the records as they lie on disk, which reports leave out; None where it is not there."""
        import numpy as np

        at = self.place[rows]
        found = self.stored.texts(name, np.where(at < 0, 0, at))
        return [None if missing else value for value, missing in zip(found, at < 0, strict=True)]

    def _kind(
        self, correct: float, answer: str | None, said: str | None, excerpt: str | None, source: str | None
    ) -> str | None:
        """The kind of a wrong answer; None for right and failed samples."""
        return error_kind(answer or "", said or "", excerpt, source)[0] if correct < 1 else None


_NUMBERS = (
    "prompt_tokens", "needle_token_start", "needle_token_end", "needle_segment", "question_segment", "compressions",
    "needle_straddles_border", "phase", "answer_crosses_border", "seconds", "generation_tokens", "real_depth", "depth_percent",
)  # fmt: skip


def chosen(cell: np.ndarray, right: np.ndarray, limit: int) -> np.ndarray:
    """Which samples are listed, bool [samples]: all, or `limit` of them spread evenly over the cells.

    Of each cell three samples that are not right go to one that is, as long as there are any, each drawn by chance.

    Args:
        cell: the number of each sample's cell.
        right: whether its answer is right.
    """
    import numpy as np

    if len(cell) <= limit:
        return np.ones(len(cell), bool)
    shuffled = np.random.default_rng(0).permutation(len(cell))
    group = (2 * cell + right)[shuffled]
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    within = np.arange(len(cell)) - np.repeat(starts, np.diff([*starts, len(cell)]))
    turn = np.empty(len(cell))
    turn[shuffled[order]] = within
    turn = np.where(right, 4 * turn + 3, turn * 4 / 3)
    kept = np.zeros(len(cell), bool)
    kept[np.lexsort((cell, turn))[:limit]] = True
    return kept


def _stored(run: DepthRun) -> RunRecords:
    """The records with the columns and texts that an analysis leaves out."""
    if not run.records.parts:
        return read_run(run.folder)
    import pyarrow as pa

    stored = [read_run(part) for part in run.records.parts]
    return replace(stored[0], folder=run.folder, table=pa.concat_tables([one.table for one in stored]))


def _prompts(records: RunRecords, wanted: set[str]) -> Prompts:
    """The text around the needles; each part of a joined run has its own data set."""
    if not records.parts:
        return around_needles(records.manifest, wanted)
    found: dict[str, Around] = {}
    missing = None
    for part in records.parts:
        prompts = around_needles(_json_object(part / MANIFEST), wanted - set(found))
        found |= prompts.found
        missing = prompts.missing
    return Prompts(found, missing)


def _places_in(stored: RunRecords, records: RunRecords) -> np.ndarray:
    """The row in `stored` of each row of `records`, -1 where a run that goes on has moved on: int64 [rows]."""
    import numpy as np

    rows = np.arange(len(records))
    keys, there = records.texts("sample_key", rows), stored.texts("sample_key", np.arange(len(stored)))
    if keys == there:
        return rows
    place = {key: at for at, key in enumerate(there) if key is not None}
    return np.array([place.get(key, -1) if key else -1 for key in keys], dtype=np.int64)


def _answers_table(run: QuestionRun, limit: int, longest: int) -> SampleTable:
    """The answers of a judged run: those on which judges differ or that are not right first where there are too many."""
    import numpy as np

    items = run.generations.items
    states = [[judge.state(one) for judge in run.judges] for one in items]
    right = np.array([bool(own) and all(state == "right" for state in own) for own in states], dtype=bool)
    questions = {key: at for at, key in enumerate(dict.fromkeys(one.question_key for one in items))}
    cell = np.array([questions[one.question_key] for one in items], dtype=np.int64)
    kept = np.flatnonzero(chosen(cell, right, limit)).tolist()
    columns: dict[str, Sequence[Any]] = {
        "key": [items[at].key for at in kept],
        "id": [items[at].question_id for at in kept],
        "repeat": [items[at].repeat for at in kept],
        "category": [items[at].category for at in kept],
        "length": [items[at].input_tokens or items[at].prompt_tokens for at in kept],
        "states": [states[at] for at in kept],
        "answer": [_short(items[at].answer) for at in kept],
        "said": [_short(items[at].text) for at in kept],
    }

    def texts(places: Sequence[int]) -> list[dict[str, Any]]:
        return [_answer(run, kept[place], longest) for place in places]

    return SampleTable(len(items), columns, texts)


def _answer(run: QuestionRun, at: int, longest: int) -> dict[str, Any]:
    one = run.generations.items[at]
    verdicts = [
        {"judge": judge.name, "state": judge.state(one), "raw": _cut(judge.raw(one), longest)} for judge in run.judges
    ]
    words = {name: _cut(getattr(one, name), longest) for name in ("question", "answer", "error")}
    return {
        "key": one.key, "id": one.question_id, **words, "generation_text": _cut(one.text, longest),
        "finish_reason": one.finish_reason, "verdicts": verdicts, "document_set": one.document_set,
    }  # fmt: skip


def _question_row(run: QuestionRun, identity: str, name: str) -> RunRow:
    """The line of a judged run: the accuracy by its first judge."""
    summary = run.summary
    judge = summary.judges[0] if summary.judges else {}
    manifest = _json_object(run.folder / MANIFEST) or {}
    return RunRow(
        id=identity, name=name, kind="questions", model=summary.model, task=summary.task, memory=None, step=None, lengths=(),
        accuracy=judge.get("accuracy"), ci_low=judge.get("ci_low"), ci_high=judge.get("ci_high"), samples=summary.answers,
        failed=summary.failed, date=_date(manifest), verdict=f"by {judge['name']}" if judge else "not judged yet",
    )  # fmt: skip


def _json_object(path: Path) -> dict[str, Any] | None:
    """The object in a file; None where there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _date(manifest: Mapping[str, Any]) -> str | None:
    started = (manifest.get("environment") or {}).get("started")
    return str(started) if started else None


def _numbers(values: np.ndarray) -> list[Number | None]:
    return [number(value) for value in values.tolist()]


def _short(value: str | None) -> str | None:
    return value if value is None or len(value) <= SHORT else f"{value[:SHORT]}…"


def _cut(value: str | None, longest: int) -> str | None:
    """A text of at most so many characters, and how many were left out."""
    if value is None or len(value) <= longest:
        return value
    return f"{value[:longest]} … ({len(value) - longest:,} more characters)"


def as_json(content: Any) -> bytes:
    """JSON that every parser reads, in ASCII: safe in a file of its own."""
    return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()
