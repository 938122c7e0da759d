"""longbench_v2: questions with four choices on long documents, as THUDM/LongBench-v2 publishes them (licence Apache 2.0).

The rule that judges answers is that of Bai et al. 2024 (arXiv 2412.15204); the wording around documents and questions is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from infini_eval.api.task import DataFinding, LoadedData, Task
from infini_eval.data.passkey import duplicates, findings
from infini_eval.errors import ConfigError, DataError
from infini_eval.records import CHOICES, Sample
from infini_eval.tasks._published import Layout, Row, text_of
from infini_eval.tasks._published import load as load_published

LETTERS = ("A", "B", "C", "D")
TEXT, LETTER = "text", "letters"
OPTIONS = {"by": TEXT, "length": "all"}
VALID = {"by": (TEXT, LETTER), "length": ("all", "short", "medium", "long")}
BEFORE = "Read this document. A question with four choices follows.\n\n<document>\n{context}\n</document>\n\n"
ASKED = "Question: {question}\n(A) {choice_A}\n(B) {choice_B}\n(C) {choice_C}\n(D) {choice_D}\n\n"
SAID = "The correct answer is ("
AFTER = {
    TEXT: f"Which choice is right? Answer with this sentence, its letter filled in: {SAID}LETTER)\n",
    LETTER: f"Which choice is right? {SAID}",
}
COLUMNS = ("_id", "question", "choice_A", "choice_B", "choice_C", "choice_D", "answer", "context", "length")
NOTE = "longbench_v2: documents and questions as published, whole, in our wording; see docs/long-context-tasks.md"


def load(path: str, *, options: Mapping[str, str] = OPTIONS, **filters: Any) -> LoadedData:
    """The published questions; `by` and `length` as OPTIONS has them."""
    for name, valid in VALID.items():
        if options[name] not in valid:
            raise ConfigError(f"--option {name}={options[name]} is not known", valid=", ".join(valid))
    source = "hf download --repo-type dataset THUDM/LongBench-v2"
    layout = Layout(COLUMNS, partial(_sample, by=options["by"]), source, NOTE)
    data = load_published(path, layout, filters)
    wanted = options["length"]
    samples = [sample for sample in data.samples if wanted in ("all", sample.columns["length"])]
    if not samples:
        held = ", ".join(sorted({str(sample.columns["length"]) for sample in data.samples}))
        raise DataError(f"{data.source} holds no question of --option length={wanted}", valid=held)
    return replace(data, samples=samples, settings=dict(options))


def _sample(row: Row, number: int, *, by: str) -> Sample:
    letter = text_of(row, "answer").strip()
    if letter not in LETTERS:
        raise ValueError(f"the answer is {letter[:20]!r}, none of the letters {', '.join(LETTERS)}")
    texts = {name: text_of(row, name).strip() for name in COLUMNS if name not in ("_id", "answer", "length")}
    prompt = BEFORE.format(context=texts["context"]) + ASKED.format(**texts) + AFTER[by]
    left_out = {*texts, "_id", "answer"}
    columns = {name: value for name, value in row.items() if name not in left_out}
    columns |= {"id": str(row["_id"]), "depth_percent": 0.0, "question": texts["question"], "letter": letter}
    if by == LETTER:
        columns[CHOICES] = list(LETTERS)
    return Sample(str(row["_id"]), prompt, f"{SAID}{letter})", 0.0, columns=columns)


def validate(samples: Sequence[Sample]) -> list[DataFinding]:
    """Ids that repeat."""
    return findings({"duplicate_id": duplicates(sample.id for sample in samples)})


TASK = Task(
    name="longbench_v2", scorers=("choice_letter",), max_new_tokens=128, validate=validate, load=load, options=OPTIONS
)
