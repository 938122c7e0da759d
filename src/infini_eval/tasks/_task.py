"""What a task is: how its data are read and checked, where its needle stands, and how answers are judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from infini_eval.datasets.parquet import LoadedData, load_samples, select_samples
from infini_eval.datasets.question import Generator
from infini_eval.datasets.validate import Finding
from infini_eval.errors import ConfigError
from infini_eval.records import Sample


@dataclass(frozen=True)
class Task:
    """One kind of question. A task's file defines `TASK`; its stem is the task's public name.

    `scorers`: names of the scorers recorded with every answer, the default judge first.
    `max_new_tokens`: the answer's usual budget. `load(path, *, num_shots, num_digits, context_length, depths)` reads
    a data set, `validate(samples)` names its defects, `locate(sample)` is the needle's half-open character span in
    the prompt (None where there is none). `generator` makes its data, where they can be made. A task with `options`
    (names and defaults) gets them as a further keyword of `load`. `select(samples, number, seed)` draws samples.
    `report`: by depths, by questions (answers wait for a judge), or none of its own (a judge's verdicts).
    """

    name: str
    scorers: tuple[str, ...]
    max_new_tokens: int
    validate: Callable[[Sequence[Sample]], list[Finding]]
    locate: Callable[[Sample], tuple[int, int] | None]
    load: Callable[..., LoadedData] = load_samples
    generator: Generator | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    select: Callable[[Sequence[Sample], int | None, int], tuple[list[Sample], list[str]]] = select_samples
    report: Literal["depths", "questions", "none"] = "depths"

    def with_defaults(self, given: Mapping[str, str]) -> dict[str, str]:
        """All options, the given ones and the defaults; ConfigError for a name that the task does not have."""
        unknown = [name for name in given if name not in self.options]
        if unknown:
            known = ", ".join(f"{name}={value}" for name, value in self.options.items())
            raise ConfigError(f"--option {unknown[0]}: not an option of {self.name}", valid=known or "no options")
        return {**self.options, **given}
