"""qa: questions of your own, with a text or without one, as the rows of a file have them."""

from __future__ import annotations

from collections.abc import Sequence

from infini_eval.api.task import DataFinding, Span, Task
from infini_eval.data.passkey import duplicates, findings, whole_word_starts
from infini_eval.records import Sample


def locate(sample: Sample) -> Span | None:
    """The answer's place in the prompt where it stands there once; nothing says that a second place is not meant."""
    answer = sample.answer.strip()
    places = whole_word_starts(sample.prompt, answer) if answer else []
    return (places[0], places[0] + len(answer)) if len(places) == 1 else None


def validate(samples: Sequence[Sample]) -> list[DataFinding]:
    """Ids that repeat."""
    return findings({"duplicate_id": duplicates(sample.id for sample in samples)})


TASK = Task(
    name="qa",
    scorers=("string_match_part", "exact_match", "contains"),
    max_new_tokens=64,
    validate=validate,
    locate=locate,
)
