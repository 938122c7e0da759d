"""AA-LCR's data: where they lie, the questions of the CSV with their documents in its order, and the official prompt."""

from __future__ import annotations

import csv
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infini_eval.api.task import LoadedData
from infini_eval.errors import ConfigError, DataError
from infini_eval.records import PERPLEXITY_OF, Sample
from infini_eval.tasks.aa_lcr.documents import Archive, DocumentMissing, Fetch, WebTextError, fetch_text
from infini_eval.tasks.aa_lcr.protocols import PROTOCOLS, known_revision

CSV_NAME = "AA-LCR_Dataset.csv"
OFFICIAL, REASONING = "official", "reasoning"
PROMPTS = (OFFICIAL, REASONING)
REASONING_STEPS = (
    "Reason before you answer, in these steps:\n"
    "1. Repeat the question.\n"
    "2. List the sub-questions that have to be answered first.\n"
    "3. Give the evidence for each, with the number of the document it stands in.\n"
    "4. Put the evidence together.\n"
    '5. End with the final answer alone on one line, which starts with "Final answer:".\n'
)
OPTIONS = {
    "prompt": OFFICIAL,
    "repeats": "1",
    "missing": "refuse",
    "urls": "no",
    "revision": "any",
    "workers": "4",
    "metrics": "",
}
CHOICES = {"prompt": PROMPTS, "missing": ("refuse", "skip"), "urls": ("no", "yes")}
PERPLEXITY, STEPS = "perplexity", "steps"
METRICS = (PERPLEXITY, STEPS)  # --option metrics=perplexity,steps
COLUMNS = ("document_category", "document_set_id", "question_id", "question", "answer", "data_source_filenames")
NO_DEPTH = math.nan  # one object, so that samples without a depth share a cell
SHOWN = 20
VALID = "a folder with AA-LCR_Dataset.csv and extracted_text/, that CSV, or the hub id ArtificialAnalysis/AA-LCR"
PATTERNS = ["*.csv", "extracted_text/*"]
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Question:
    """One row of the CSV. `files` and `urls` are in the order of the prompt."""

    id: str
    category: str
    document_set: str
    question: str
    answer: str
    files: tuple[str, ...]
    urls: tuple[str, ...]
    input_tokens: int | None


@dataclass(frozen=True)
class Document:
    """A document's text and whether it came from the web, or (text None) why it cannot be had."""

    text: str | None
    from_url: bool = False
    problem: str = ""


@dataclass(frozen=True)
class DocumentSource:
    """Folder or CSV, its name for people, and the hub's commit where the folder is a snapshot."""

    path: Path
    name: str
    commit: str | None
    notes: tuple[str, ...] = ()


def find_source(path_or_hub_id: str, revision: str = "any") -> DocumentSource:
    """The data; `revision` "v1.0", "v1.1" or a commit pins the hub's, "any" takes what is cached or newest."""
    name = path_or_hub_id
    path = Path(name).expanduser()
    if path.exists():
        return DocumentSource(path, str(path), _commit_of(path))
    if name.count("/") != 1 or name.startswith((".", "~", "/")):
        raise DataError(f"no data set at {name}", valid=VALID)
    local = Path(path.name)
    if local.is_dir():
        note = f"using the local folder ./{local} instead of the hub's {name}"
        return DocumentSource(local, str(local), _commit_of(local), (note,))
    folder = _snapshot(name, revision)
    return DocumentSource(folder, f"hub:{name}", _commit_of(folder))


def _commit_of(path: Path) -> str | None:
    """The commit in a path of the hub's cache, .../snapshots/<commit>."""
    parts = path.resolve().parts
    if "snapshots" in parts[:-1]:
        after = parts[parts.index("snapshots") + 1]
        return after if _COMMIT.fullmatch(after) else None
    return None


def _snapshot(name: str, revision: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    wanted = PROTOCOLS[revision].revision if revision in PROTOCOLS else None if revision == "any" else revision
    try:
        return Path(snapshot_download(name, repo_type="dataset", revision=wanted, allow_patterns=PATTERNS))
    except (OSError, ValueError, HfHubHTTPError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"the hub data set {name} cannot be had: {reason}",
            valid=VALID,
            next_step=f"hf download --repo-type dataset {name}, or put its files into ./{Path(name).name}/",
        ) from error


def load_aa_lcr(
    folder: Path, options: Mapping[str, str], *, source: str, commit: str | None = None, fetch: Fetch = fetch_text
) -> LoadedData:
    """One sample for each question and repeat; `options` as OPTIONS, `commit` the hub's revision where it is known.

    DataError lists every document that cannot be had, unless missing=skip leaves their questions out (which is noted):
    a prompt is whole, or it is not asked.
    """
    repeats, workers = _checked(options)
    path = _csv_path(folder)
    data = path.read_bytes()
    rows = read_questions(path)
    questions = list(dict.fromkeys(rows))  # a row that stands twice would be planned twice and answered once
    archive = Archive(path.parent)
    with ThreadPoolExecutor(workers) as pool:
        found = list(
            pool.map(lambda one: _documents(one, archive, fetch if options["urls"] == "yes" else None), questions)
        )
    notes, left_out = [*archive.notes], _incomplete(questions, found)
    if len(questions) < len(rows):
        notes.append(f"{len(rows) - len(questions)} row(s) of the CSV repeat another exactly and are asked once")
    if left_out and options["missing"] == "refuse":
        raise _missing(left_out, source, urls=options["urls"] == "yes")
    notes += [f"left out, for a document is missing: {line}" for lines in left_out.values() for line in lines]
    kept = [(one, texts) for one, texts in zip(questions, found, strict=True) if one.id not in left_out]
    if not kept:
        raise DataError(f"{source}: no question is left whose documents are all there")
    from_urls = sum(text.from_url for _, texts in kept for text in texts)
    if from_urls:
        notes.append(f"{from_urls} document(s) came from the web: not the data set's own text, so a deviation")
    revision = known_revision(hashlib.sha256(data).hexdigest(), commit)
    settings = {"prompt": options["prompt"], "revision": revision or "unknown", "documents_from_urls": from_urls}
    settings |= {"left_out": sorted(left_out)} if left_out else {}
    metrics = metrics_of(options["metrics"])
    settings |= {"metrics": list(metrics)} if metrics else {}
    samples = [
        _sample(one, texts, options["prompt"], repeat, PERPLEXITY in metrics)
        for repeat in range(repeats)
        for one, texts in kept
    ]
    return LoadedData(samples, _fingerprint(data, kept), source, notes, settings)


def read_questions(path: Path) -> list[Question]:
    """The rows of the CSV; DataError where a column or a value is missing."""
    csv.field_size_limit(1 << 24)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = [name or "" for name in reader.fieldnames or ()]
            missing = [name for name in COLUMNS if name not in columns]
            if missing:
                raise DataError(f"{path} has no column {', '.join(missing)}; its columns: {', '.join(columns)}")
            questions = [_question(row, path, reader.line_num) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    if not questions:
        raise DataError(f"{path} holds no rows")
    return questions


def _question(row: Mapping[str, str | None], path: Path, line: int) -> Question:
    value = {name: (row.get(name) or "").strip() for name in (*COLUMNS, "data_source_urls", "input_tokens")}
    empty = [name for name in COLUMNS if not value[name]]
    if empty:
        raise DataError(f"{path}, line {line}: nothing in column {', '.join(empty)}")
    tokens = value["input_tokens"].replace(",", "")
    return Question(
        id=value["question_id"],
        category=value["document_category"],
        document_set=value["document_set_id"],
        question=value["question"],
        answer=value["answer"],
        files=_listed(value["data_source_filenames"]),
        urls=_listed(value["data_source_urls"]),
        input_tokens=int(float(tokens)) if tokens.replace(".", "", 1).isdecimal() else None,
    )


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(";") if part.strip())


def _documents(question: Question, archive: Archive, fetch: Fetch | None) -> list[Document]:
    return [_document(question, number, archive, fetch) for number in range(len(question.files))]


def _document(question: Question, number: int, archive: Archive, fetch: Fetch | None) -> Document:
    try:
        return Document(archive.read(question.category, question.document_set, question.files[number]))
    except DocumentMissing as problem:
        reason = str(problem)
    if fetch is None:
        return Document(None, problem=reason)
    if len(question.urls) != len(question.files):
        return Document(None, problem=f"{reason}; {len(question.urls)} addresses for {len(question.files)} documents")
    url = question.urls[number]
    try:
        text = fetch(url)
    except WebTextError as error:
        return Document(None, problem=f"{reason}; {url}: {error}")
    return Document(text, from_url=True) if text.strip() else Document(None, problem=f"{reason}; {url}: empty")


def _incomplete(questions: Sequence[Question], found: Sequence[Sequence[Document]]) -> dict[str, list[str]]:
    """For each question that lacks a document, one line for each it lacks."""
    lines: dict[str, list[str]] = {}
    for one, documents in zip(questions, found, strict=True):
        for number, (name, document) in enumerate(zip(one.files, documents, strict=True), 1):
            if document.text is None:
                line = f"question {one.id}, document {number} of {len(one.files)} {name!r}: {document.problem}"
                lines.setdefault(one.id, []).append(line)
    return lines


def _missing(left_out: Mapping[str, Sequence[str]], source: str, *, urls: bool) -> DataError:
    lines = [line for group in left_out.values() for line in group]
    shown = "\n".join(f"    {line}" for line in lines[:SHOWN])
    more = f"\n    ... and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    remedy = "mend the data, or leave such questions out: --option missing=skip"
    return DataError(
        f"{source}: {len(lines)} document(s) of {len(left_out)} question(s) cannot be had:\n{shown}{more}",
        next_step=remedy if urls else f"{remedy}; or try their web addresses: --option urls=yes",
    )


def metrics_of(text: str) -> tuple[str, ...]:
    """What `metrics=` names, separated by commas; ConfigError for anything that is not known."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if unknown := [name for name in names if name not in METRICS]:
        raise ConfigError(f"--option metrics={text}: {unknown[0]} is not known", valid=",".join(METRICS))
    return names


def _sample(question: Question, documents: Sequence[Document], kind: str, repeat: int, perplexity: bool) -> Sample:
    columns: dict[str, Any] = {
        "question_id": question.id,
        "repeat": repeat + 1,
        "document_category": question.category,
        "document_set_id": question.document_set,
        "question": question.question,
        "documents": len(documents),
        "input_tokens": question.input_tokens,
        **({PERPLEXITY_OF: question.answer} if perplexity else {}),
    }
    text = prompt(kind, [document.text or "" for document in documents], question.question)
    return Sample(question.id, text, question.answer, NO_DEPTH, columns=columns, occurrence=repeat)


def _fingerprint(data: bytes, kept: Sequence[tuple[Question, Sequence[Document]]]) -> str:
    """sha256 of the CSV and the documents' texts, 16 hex digits: the same for a zip and its unpacked copy."""
    digest = hashlib.sha256(data)
    for _, documents in kept:
        for document in documents:
            digest.update(hashlib.sha256((document.text or "").encode()).digest())
    return digest.hexdigest()[:16]


def _csv_path(folder: Path) -> Path:
    if folder.is_file():
        return folder
    path = folder / CSV_NAME
    if path.is_file():
        return path
    others = sorted(folder.glob("*.csv"))
    if len(others) == 1:
        return others[0]
    raise DataError(
        f"{folder} holds no {CSV_NAME}", valid=f"a folder with {CSV_NAME} and extracted_text/, as the hub has it"
    )


def _checked(options: Mapping[str, str]) -> tuple[int, int]:
    """Repeats and workers; ConfigError for values that no option has."""
    for name, valid in CHOICES.items():
        if options[name] not in valid:
            raise ConfigError(f"--option {name}={options[name]} is not known", valid=", ".join(valid))
    metrics_of(options["metrics"])
    numbers = []
    for name in ("repeats", "workers"):
        if not options[name].isdecimal() or not 1 <= int(options[name]) <= 1000:
            raise ConfigError(f"--option {name}={options[name]} is not known", valid="a whole number from 1 to 1000")
        numbers.append(int(options[name]))
    return numbers[0], numbers[1]


def official_prompt(documents: Sequence[str], question: str) -> str:
    """The prompt of the data card: documents in their order, numbered from 1, then the question."""
    texts = "\n\n".join(f"BEGIN DOCUMENT {i}:\n{text}\nEND DOCUMENT {i}" for i, text in enumerate(documents, 1))
    return (
        f"BEGIN INPUT DOCUMENTS\n\n{texts}\n\nEND INPUT DOCUMENTS\n\n"
        "Answer the following question using the input documents provided above.\n\n"
        f"START QUESTION\n\n{question}\n\nEND QUESTION\n"
    )


def reasoning_prompt(documents: Sequence[str], question: str) -> str:
    """The official prompt and the steps to reason in: a deviation, whose scores are not the official ones."""
    return f"{official_prompt(documents, question)}\n{REASONING_STEPS}"


def prompt(kind: str, documents: Sequence[str], question: str) -> str:
    """The prompt of that kind."""
    return reasoning_prompt(documents, question) if kind == REASONING else official_prompt(documents, question)
