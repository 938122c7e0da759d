"""AA-LCR, long-context reasoning over several documents (Artificial Analysis): everything of it but reports and commands.

`aa_lcr` asks the questions (`data`, `documents`); answers are free text, which are read (`answers`) and asked about by
`aa_lcr_judge` (`judge`, `protocols`), whose replies are the `verdicts`.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from infini_eval.api.task import DataFinding, LoadedData, Task
from infini_eval.data.passkey import duplicates, findings
from infini_eval.records import Sample
from infini_eval.tasks.aa_lcr.data import OFFICIAL, OPTIONS, find_source, load_aa_lcr
from infini_eval.tasks.aa_lcr.judge import TASK as JUDGE_TASK

__all__ = ["JUDGE_TASK", "TASK"]


def load(path: str, *, options: Mapping[str, str], **filters: Any) -> LoadedData:
    """The questions with their documents; filters on depths, lengths and needles mean nothing here, which is noted."""
    source = find_source(path, options["revision"])
    data = load_aa_lcr(source.path, options, source=source.name, commit=source.commit)
    notes = [*source.notes, *data.notes]
    given = [name for name, value in filters.items() if value]
    notes += [f"aa_lcr has no {name}: not filtered by it" for name in given]
    if options["prompt"] != OFFICIAL:
        notes.append(f"the {options['prompt']} prompt is a deviation: its scores are not the official ones")
    return LoadedData(data.samples, data.fingerprint, data.source, notes, data.settings)


def validate(samples: Sequence[Sample]) -> list[DataFinding]:
    """Question ids that repeat within one repeat."""
    return findings({"duplicate_id": duplicates(f"{sample.id} (repeat {sample.occurrence + 1})" for sample in samples)})


def select(samples: Sequence[Sample], number: int | None, seed: int) -> tuple[list[Sample], list[str]]:
    """So many questions, drawn with the seed, each with all its repeats; a smaller draw is part of a larger one."""
    if number is None:
        return list(samples), []
    ids = sorted({sample.id for sample in samples})
    random.Random(f"{seed}/questions").shuffle(ids)
    chosen = set(ids[:number])
    notes = [f"asked for {number} questions, {len(ids)} are there"] if len(ids) < number else []
    return [sample for sample in samples if sample.id in chosen], notes


TASK = Task(
    name="aa_lcr",
    scorers=("judge",),
    max_new_tokens=4096,
    validate=validate,
    locate=lambda sample: None,
    load=load,
    options=OPTIONS,
    select=select,
    report="questions",
)
