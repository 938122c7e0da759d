"""Scorers of several references, on cases worked out by hand from RULER's definitions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from infini_eval.api import registry
from infini_eval.records import Sample

CASES = [
    # scorer, generation, references, value
    ("string_match_all", "They are 111 and 333.", ["111", "222", "333", "444"], 0.5),
    ("string_match_all", "ALPHA beta", ["Alpha", "BETA"], 1.0),
    ("string_match_all", "1112", ["111"], 1.0),
    ("string_match_all", "", ["111"], 0.0),
    ("string_match_all", "new\x0byork", ["new york"], 0.0),
    ("string_match_part", "it is Paris, I think", ["London", "paris"], 1.0),
    ("string_match_part", "it is Rome", ["London", "Paris"], 0.0),
    ("exact_match", " Eat a  Sandwich. ", ["eat a sandwich"], 1.0),
    ("exact_match", "you should eat a sandwich", ["eat a sandwich"], 0.0),
    ("exact_match", "...", ["eat"], 0.0),
]


def sample(references: list[str], **columns: Any) -> Sample:
    return Sample("a", "prompt", ", ".join(references), 50.0, columns={"outputs": json.dumps(references), **columns})


@pytest.mark.parametrize(("scorer", "generation", "references", "value"), CASES)
def test_by_hand(scorer: str, generation: str, references: list[str], value: float) -> None:
    assert registry.load("scorers", scorer)(generation, sample(references)).value == value


def test_what_was_read() -> None:
    score = registry.load("scorers", "string_match_all")("333 111", sample(["111", "222", "333"]))
    assert score.extracted == "111, 333"
    assert registry.load("scorers", "exact_match")("...", sample(["x"])).extracted is None


@pytest.mark.parametrize("outputs", [["111"], "111", json.dumps(["111"]), None])
def test_references_of_other_data(outputs: Any) -> None:
    plain = Sample("a", "prompt", "111", 50.0, columns={} if outputs is None else {"outputs": outputs})
    for scorer in ("string_match_all", "string_match_part", "exact_match"):
        assert registry.load("scorers", scorer)("111", plain).value == 1.0
        assert registry.load("scorers", scorer)("112", plain).value == 0.0


def test_rouge_l() -> None:
    pytest.importorskip("rouge_score")
    score = registry.load("scorers", "rouge_l")
    assert score("the cat sat on the mat", sample(["the cat sat on the mat"])).value == 1.0
    # the longest common subsequence is 3 words: recall 3/3, precision 3/4, F = 6/7
    assert score("the cat sat on", sample(["nothing", "the cats sat"])).value == pytest.approx(6 / 7)
    assert score("", sample(["the cat"])).value == 0.0
