"""The answers of an aa_lcr run, from its folder or from the JSON file that generate.py writes and evaluate.py reads."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from infini_eval.errors import DataError
from infini_eval.results.files import write_json
from infini_eval.results.manifest import MANIFEST, read_manifest
from infini_eval.results.samples import iter_samples, unique_records

VERSION = 1
ALIASES = {
    "answer": ("answer", "ground_truth", "official_answer"),
    "text": ("text", "generation_text", "generated_response", "response", "generation"),
    "question_id": ("question_id", "id"),
    "category": ("category", "document_category"),
    "document_set": ("document_set", "document_set_id"),
}
_STEP = re.compile(r"^[\s*#>]*(?:step\s+)?(\d{1,2})\s*[.):]", re.IGNORECASE | re.MULTILINE)
_FINAL = re.compile(r"[\s*#>]*final answer\W*:", re.IGNORECASE)
FORM = '[{"question": "…", "answer": "…", "response": "…"}, …], or a file that generate.py wrote'


@dataclass(frozen=True)
class Generation:
    """One answer to one question. `status` is "ok" or "failed"; `key` tells answers to different prompts apart."""

    key: str
    question_id: str
    repeat: int
    question: str
    answer: str
    text: str
    status: str = "ok"
    error: str | None = None
    finish_reason: str | None = None
    category: str | None = None
    document_set: str | None = None
    input_tokens: int | None = None
    prompt_tokens: int | None = None
    perplexity: float | None = None

    @property
    def steps(self) -> int:
        """Lines of the answer that open a step of reasoning: "1.", "2)", "Step 3"; the same number is counted once."""
        return len({match[1] for match in _STEP.finditer(self.text)})

    @property
    def ends_in_one_line(self) -> bool:
        """Whether the last line is the final answer alone, as the reasoning prompt asks."""
        lines = [line for line in self.text.splitlines() if line.strip()]
        return bool(lines) and _FINAL.match(lines[-1]) is not None

    @property
    def text_sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]

    @property
    def words(self) -> str:
        """The question's words; white space tells no two questions apart."""
        return _words(self.question)

    @property
    def question_key(self) -> str:
        """The question by its id and its words: lists of other tools give one id to several questions."""
        return f"{self.question_id}\n{self.words}"


@dataclass(frozen=True)
class Generations:
    """All answers of a run. `fingerprint` names the run's settings; `settings` are those of its data (prompt, revision).

    `duplicates`: rows of a file that repeated another exactly and are not among the items. `ids_given`: False where rows
    came without a question's id, so that only the words say which questions are the same.
    """

    source: Path
    items: tuple[Generation, ...]
    model: str
    fingerprint: str
    settings: Mapping[str, Any]
    planned: int | None = None
    duplicates: int = 0
    ids_given: bool = True

    @property
    def judges_folder(self) -> Path:
        """Where judges' verdicts lie: in the run's folder, or beside the JSON file."""
        return self.source / "judges" if self.source.is_dir() else self.source.with_suffix(".judges")


def read_generations(source: Path) -> Generations:
    """The answers in a run folder or a JSON file; DataError where there are none."""
    if not source.exists():
        raise DataError(f"no answers at {source}", valid="a run folder of the task aa_lcr, or the JSON of generate.py")
    found = _of_folder(source) if source.is_dir() else _of_file(source)
    if not found.items:
        raise DataError(f"{source} holds no answer yet", next_step="run the evaluation's own command again")
    return found


def write_generations(folder: Path, path: Path) -> int:
    """Write the answers of a run folder as one JSON file; returns how many."""
    found = read_generations(folder)
    head = {"schema_version": VERSION, "task": "aa_lcr", "model": found.model, "fingerprint": found.fingerprint}
    rows = [asdict(one) for one in found.items]
    write_json(path, {**head, "settings": found.settings, "planned": found.planned, "generations": rows})
    return len(rows)


def _of_folder(folder: Path) -> Generations:
    if not (folder / MANIFEST).is_file():
        raise DataError(f"{folder} is not a run folder", valid="a run folder of the task aa_lcr, or a JSON file")
    manifest = read_manifest(folder)
    task = manifest.identity.get("task")
    if task != "aa_lcr":
        raise DataError(f"{folder} is a run of the task {task}", valid="a run of the task aa_lcr")
    identity = json.dumps(manifest.identity, sort_keys=True)
    records = unique_records(line.record for line in iter_samples(folder) if line.record is not None)
    items = tuple(sorted((_of_record(record) for record in records), key=_order))
    fingerprint = hashlib.sha256(identity.encode()).hexdigest()[:16]
    settings = manifest.identity.get("data_settings") or {}
    model = str(manifest.model.get("name") or "unknown model")
    return Generations(folder, items, model, fingerprint, settings, manifest.samples_planned)


def _of_record(record: Mapping[str, Any]) -> Generation:
    return Generation(
        key=record["sample_key"],
        question_id=str(record["question_id"]),
        repeat=int(record["repeat"]),
        question=record["question"],
        answer=record["answer"],
        text=record["generation_text"] or "",
        status=record["status"],
        error=record["error"],
        finish_reason=record["finish_reason"],
        category=record["document_category"],
        document_set=record["document_set_id"],
        input_tokens=record["input_tokens"],
        prompt_tokens=record["prompt_tokens"],
        perplexity=record.get("perplexity"),
    )


def _of_file(path: Path) -> Generations:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}", valid=FORM) from None
    head = data if isinstance(data, dict) else {}
    rows = head.get("generations") if isinstance(data, dict) else data
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path} holds no list of answers", valid=FORM)
    ids = _question_ids(rows)
    found = [_of_row(row, number, ids[number], path) for number, row in enumerate(rows)]
    distinct: dict[tuple[Any, ...], Generation] = {}
    for one in found:
        distinct.setdefault(_identity(one), one)
    items = tuple(sorted(_numbered(distinct.values()), key=_order))
    fingerprint = str(head.get("fingerprint") or hashlib.sha256(path.read_bytes()).hexdigest()[:16])
    settings = head.get("settings") if isinstance(head.get("settings"), dict) else {}
    return Generations(
        path, items, str(head.get("model") or path.stem), fingerprint, settings or {}, head.get("planned"),
        duplicates=len(found) - len(distinct), ids_given=all(_aliased(row, "question_id") is not None for row in rows),
    )  # fmt: skip


def _question_ids(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each row's id; one without gets that of the rows with its question, or the number of the first such row."""
    own = [_aliased(row, "question_id") for row in rows]
    taken = {str(value) for value in own if value is not None}
    words = [_words(str(row.get("question"))) for row in rows]
    of_question: dict[str, str] = {}
    for value, text in zip(own, words, strict=True):
        if value is not None:
            of_question.setdefault(text, str(value))
    for number, text in enumerate(words, 1):
        of_question.setdefault(text, f"row {number}" if str(number) in taken else str(number))
    return [of_question[text] if value is None else str(value) for value, text in zip(own, words, strict=True)]


def _identity(one: Generation) -> tuple[Any, ...]:
    """What makes two rows the same answer, whatever else they say; repeat 0 where the row names none."""
    return one.question_key, one.answer, one.repeat, one.text, one.status


def _numbered(items: Iterable[Generation]) -> Iterator[Generation]:
    """Answers whose row names no repeat, numbered from 1 for each question."""
    seen: Counter[str] = Counter()
    for one in items:
        seen[one.question_key] += not one.repeat
        yield one if one.repeat else replace(one, repeat=seen[one.question_key])


def _of_row(row: Mapping[str, Any], number: int, question_id: str, path: Path) -> Generation:
    """A row of ours, or of another tool's list under the names that such lists use; repeat 0 where it names none."""
    value = {name: _aliased(row, name) for name in ALIASES}
    question = row.get("question")
    missing = [name for name, given in (("question", question), ("answer", value["answer"])) if not given]
    if value["text"] is None and row.get("status") != "failed":
        missing.append("response")
    if missing:
        raise DataError(f"{path}, entry {number + 1} has no {', '.join(missing)}", valid=FORM)
    content = json.dumps([number, question, value["answer"]])
    known = {name: row.get(name) for name in ("error", "finish_reason", "input_tokens", "prompt_tokens", "perplexity")}
    return Generation(
        key=str(row.get("key") or hashlib.sha256(content.encode()).hexdigest()[:16]),
        question_id=question_id,
        repeat=_repeat(row.get("repeat"), number, path),
        question=str(question),
        answer=str(value["answer"]),
        text=str(value["text"] or ""),
        status=str(row.get("status") or "ok"),
        category=value["category"],
        document_set=value["document_set"],
        **known,
    )


def _aliased(row: Mapping[str, Any], name: str) -> Any:
    """The value under the first of the names that a list may use; None where there is none."""
    return next((row[key] for key in ALIASES[name] if row.get(key) is not None), None)


def _repeat(value: Any, number: int, path: Path) -> int:
    text = str(value or 0)
    if not text.isdecimal():
        raise DataError(f"{path}, entry {number + 1} has the repeat {value!r}", valid="a whole number from 1, or none")
    return int(text)


def _words(question: str) -> str:
    return " ".join(question.split())


def _order(one: Generation) -> tuple[int, int, str]:
    return one.repeat, int(one.question_id) if one.question_id.isdecimal() else 0, one.question_id
