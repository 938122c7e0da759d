"""What a task is: how its data are read and checked, where its needle stands, and how answers are judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from infini_eval.datasets.parquet import LoadedData, load_samples
from infini_eval.datasets.question import Generator
from infini_eval.datasets.validate import Finding
from infini_eval.records import Sample


@dataclass(frozen=True)
class Task:
    """One kind of question. A task's file defines `TASK`; its stem is the task's public name.

    `scorers`: names of the scorers recorded with every answer, the default judge first.
    `max_new_tokens`: the answer's usual budget. `load(path, *, num_shots, num_digits, context_length, depths)` reads
    a data set, `validate(samples)` names its defects, `locate(sample)` is the needle's half-open character span in
    the prompt (None where there is none). `generator` makes its data, where they can be made.
    """

    name: str
    scorers: tuple[str, ...]
    max_new_tokens: int
    validate: Callable[[Sequence[Sample]], list[Finding]]
    locate: Callable[[Sample], tuple[int, int] | None]
    load: Callable[..., LoadedData] = load_samples
    generator: Generator | None = None
