"""Kinds of wrong answers, one case each."""

from __future__ import annotations

import pytest

from infini_eval.reports.statistics.error_kinds import KINDS, breakdown, error_kind

EXCERPT = "Room 4711 is closed. The pass key is 1234. Remember it."


@pytest.mark.parametrize(
    ("generation", "kind", "place"),
    [
        ("", "empty", None), (" \n", "empty", None), ("the key", "no_number", None),
        ("4711.", "number_near_needle", None),
        ("99, no, 1234", "answer_later", None), ("123", "cut_short", None), ("12345", "digits_added", None),
        ("1284", "wrong_digits", 3), ("9234.", "wrong_digits", 1), ("77", "other_number", None),
    ],
)  # fmt: skip
def test_each_kind(generation, kind, place):
    assert error_kind("1234", generation, EXCERPT) == (kind, place)
    assert kind in KINDS


def test_words_are_not_told_apart():
    assert error_kind("blue", "red", None) == ("not_numeric", None)


def test_counts():
    samples = [("1234", "12", EXCERPT, "length"), ("1234", "12", None, "stop"), ("1234", "1294", None, "stop")]
    found = breakdown(samples[:1]) + breakdown(samples[1:])
    assert (found.looked_at, found.cut_by_limit) == (3, 1)
    assert found.kinds == {"cut_short": 2, "wrong_digits": 1}
    assert found.first_wrong_digit == {3: 1}


def test_a_huge_answer_is_looked_at_from_its_start():
    assert error_kind("1234", "x" * 10_000_000 + "1234", None) == ("no_number", None)
