"""Kinds of wrong answers, one case each."""

from __future__ import annotations

import pytest

from infini_eval.reports.statistics.failures import KINDS, breakdown, error_kind

EXCERPT = "Room 4711 is closed. The pass key is 1234. Remember it."


@pytest.mark.parametrize(
    ("generation", "kind", "place"),
    [
        ("", "empty", None), (" \n", "empty", None), ("the key", "no_number", None),
        ("4711.", "number_near_needle", None),
        ("99, no, 1234", "answer_later", None), ("123", "cut_short", None), ("12345", "digits_added", None),
        ("134", "one_digit_missing", None), ("12234", "one_digit_extra", None),
        ("1284", "wrong_digits", 3), ("9234.", "wrong_digits", 1), ("77", "other_number", None),
    ],
)  # fmt: skip
def test_each_kind(generation, kind, place):
    assert error_kind("1234", generation, EXCERPT) == (kind, place)
    assert kind in KINDS


@pytest.mark.parametrize(
    ("generation", "source", "kind"),
    [
        ("5044", "shot", "shot_number"), ("812", "prompt", "number_in_prompt"), ("77", "prompt", "other_number"),
        ("812", "nowhere", "made_up"), ("1284", "nowhere", "wrong_digits"), ("4711", "prompt", "number_near_needle"),
        ("812", None, "other_number"),
    ],
)  # fmt: skip
def test_where_the_record_says_a_number_comes_from(generation, source, kind):
    assert error_kind("1234", generation, EXCERPT, source)[0] == kind
    assert kind in KINDS


def test_words_are_not_told_apart():
    assert error_kind("blue", "red", None) == ("not_numeric", None)


def test_counts():
    samples = [
        ("1234", "12", EXCERPT, "length", None),
        ("1234", "12", None, "stop", None),
        ("1234", "1294", None, "stop", None),
    ]
    found = breakdown(samples[:1]) + breakdown(samples[1:])
    assert (found.looked_at, found.cut_by_limit) == (3, 1)
    assert found.kinds == {"cut_short": 2, "wrong_digits": 1}
    assert found.first_wrong_digit == {3: 1}


def test_a_huge_answer_is_looked_at_from_its_start():
    assert error_kind("1234", "x" * 10_000_000 + "1234", None) == ("no_number", None)
