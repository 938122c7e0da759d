"""The answers of an aa_lcr run, from its folder or from the JSON file that generate.py writes and evaluate.py reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from infini_eval.errors import DataError
from infini_eval.results.files import write_json
from infini_eval.results.manifest import MANIFEST, read_manifest
from infini_eval.results.merge import unique_records
from infini_eval.results.resume import iter_samples

VERSION = 1
ALIASES = {
    "answer": ("answer", "ground_truth", "official_answer"),
    "text": ("text", "generation_text", "generated_response", "response", "generation"),
    "question_id": ("question_id", "id"),
    "category": ("category", "document_category"),
    "document_set": ("document_set", "document_set_id"),
}
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

    @property
    def text_sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Generations:
    """All answers of a run. `fingerprint` names the run's settings; `settings` are those of its data (prompt, revision)."""

    source: Path
    items: tuple[Generation, ...]
    model: str
    fingerprint: str
    settings: Mapping[str, Any]
    planned: int | None = None

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
    items = tuple(sorted((_of_row(row, number, path) for number, row in enumerate(rows)), key=_order))
    fingerprint = str(head.get("fingerprint") or hashlib.sha256(path.read_bytes()).hexdigest()[:16])
    settings = head.get("settings") if isinstance(head.get("settings"), dict) else {}
    return Generations(
        path, items, str(head.get("model") or path.stem), fingerprint, settings or {}, head.get("planned")
    )


def _of_row(row: Mapping[str, Any], number: int, path: Path) -> Generation:
    """A row of ours, or of another tool's list under the names that such lists use."""
    value = {name: next((row[key] for key in keys if row.get(key) is not None), None) for name, keys in ALIASES.items()}
    question = row.get("question")
    missing = [name for name, given in (("question", question), ("answer", value["answer"])) if not given]
    if value["text"] is None and row.get("status") != "failed":
        missing.append("response")
    if missing:
        raise DataError(f"{path}, entry {number + 1} has no {', '.join(missing)}", valid=FORM)
    content = json.dumps([number, question, value["answer"]])
    known = {name: row.get(name) for name in ("error", "finish_reason", "input_tokens", "prompt_tokens")}
    return Generation(
        key=str(row.get("key") or hashlib.sha256(content.encode()).hexdigest()[:16]),
        question_id=str(value["question_id"] if value["question_id"] is not None else number + 1),
        repeat=int(row.get("repeat") or 1),
        question=str(question),
        answer=str(value["answer"]),
        text=str(value["text"] or ""),
        status=str(row.get("status") or "ok"),
        category=value["category"],
        document_set=value["document_set"],
        **known,
    )


def _order(one: Generation) -> tuple[int, int, str]:
    return one.repeat, int(one.question_id) if one.question_id.isdecimal() else 0, one.question_id
