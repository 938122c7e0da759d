"""Scores for records that come without: another tool's answers are judged here by exact_digits."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from infini_eval.api import registry
from infini_eval.errors import DataError
from infini_eval.records import Sample
from infini_eval.results.arrays import from_floats
from infini_eval.results.reader import RunRecords

if TYPE_CHECKING:
    import numpy as np

DEFAULT = "exact_digits"
BESIDE = "chat_digits"  # what else is judged here, so that the report can say where the two disagree


def with_scores(records: RunRecords) -> RunRecords:
    """The records with `correct` filled; unchanged where scores are stored. Failed samples keep none."""
    if "correct" in records.present:
        _check_range(records)
        return records
    note = f"no scores are stored; answers were judged by {DEFAULT}"
    scored = records.replace(correct=from_floats(_judge(records, DEFAULT)))
    if BESIDE in records.table.column_names:
        scored = scored.replace(**{BESIDE: from_floats(_judge(records, BESIDE))})
    return replace(scored, notes=(*scored.notes, note))


def with_failures_as_wrong(records: RunRecords) -> RunRecords:
    """The records with failed samples counted as wrong answers (`--failed-as-wrong`), which a note says."""
    import numpy as np

    values = records.number("correct")
    failed = np.isnan(values)
    if not failed.any():
        return records
    counted = records.replace(correct=from_floats(np.where(failed, 0.0, values)))
    note = f"{int(failed.sum())} failed sample(s) are counted as wrong (--failed-as-wrong)"
    return replace(counted, notes=(*counted.notes, note))


def _check_range(records: RunRecords) -> None:
    import numpy as np

    values = records.number("correct")
    outside = np.flatnonzero((values < 0) | (values > 1))
    if len(outside):
        raise DataError(
            f"{records.folder}: column 'correct' holds {values[outside[0]]:g} ({len(outside)} record(s) outside 0..1)",
            valid="scores from 0 (wrong) to 1 (right); or no such column, then answers are judged here",
        )


def _judge(records: RunRecords, scorer: str) -> np.ndarray:
    """Scores float64 [rows], NaN where there is no answer to judge."""
    import numpy as np

    score = registry.load("scorers", scorer)
    everything = np.arange(len(records))
    values = np.full(len(records), np.nan)
    generations, answers = records.texts("generation_text", everything), records.texts("answer", everything)
    for number, (generation, answer) in enumerate(zip(generations, answers, strict=True)):
        if generation is not None and answer is not None:
            values[number] = score(generation, Sample("", "", answer, 0)).value
    return values
