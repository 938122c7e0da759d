"""Answers from a JSON file: questions known by id or by their words, exact duplicates once, repeats numbered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from infini_eval.errors import DataError
from infini_eval.tasks.aa_lcr.answers import Generations, read_generations


def answers(folder: Path, *rows: dict[str, Any]) -> Generations:
    path = folder / "answers.json"
    path.write_text(json.dumps([{"question": "Q1?", "answer": "a", "response": "r"} | row for row in rows]))
    return read_generations(path)


def ids_and_repeats(found: Generations) -> list[tuple[str, int]]:
    return [(one.question_id, one.repeat) for one in found.items]


@pytest.mark.parametrize("row", [{}, {"id": 7}, {"id": 7, "repeat": 2}, {"key": "k"}, {"status": "failed"}])
def test_exact_duplicates_are_read_once_and_counted(tmp_path: Path, row: dict[str, Any]) -> None:
    found = answers(tmp_path, row, row, row, {"question": "Q2?"})
    assert len(found.items) == 2
    assert found.duplicates == 2


@pytest.mark.parametrize(
    "other", [{"response": "s"}, {"repeat": 2}, {"answer": "b"}, {"question": "Q2?"}, {"id": 2}], ids=str
)
def test_rows_that_differ_are_no_duplicates(tmp_path: Path, other: dict[str, Any]) -> None:
    found = answers(tmp_path, {"id": 1, "repeat": 1}, {"id": 1, "repeat": 1} | other)
    assert (len(found.items), found.duplicates) == (2, 0)


def test_rows_without_ids_are_one_question_where_their_words_are_the_same(tmp_path: Path) -> None:
    found = answers(tmp_path, {"response": "x"}, {"question": "Q2?"}, {"question": " Q1?\n", "response": "y"})
    assert ids_and_repeats(found) == [("1", 1), ("2", 1), ("1", 2)]
    assert len({one.question_key for one in found.items}) == 2
    assert not found.ids_given


def test_rows_without_an_id_take_the_one_of_their_question_and_never_anothers(tmp_path: Path) -> None:
    found = answers(tmp_path, {"question": "Q9?"}, {"id": 1}, {"response": "other"})
    assert sorted(ids_and_repeats(found)) == [("1", 1), ("1", 2), ("row 1", 1)]


def test_two_questions_of_one_id_stay_two(tmp_path: Path) -> None:
    found = answers(tmp_path, {"id": 1}, {"id": 1, "question": "Q2?"})
    assert ids_and_repeats(found) == [("1", 1), ("1", 1)]
    assert len({one.question_key for one in found.items}) == 2
    assert found.ids_given


@pytest.mark.parametrize("repeat", ["second", 0.5, -1, [1]])
def test_a_repeat_that_is_no_number_is_a_clear_error(tmp_path: Path, repeat: Any) -> None:
    with pytest.raises(DataError, match="entry 1 has the repeat"):
        answers(tmp_path, {"repeat": repeat})
