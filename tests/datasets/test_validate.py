"""The validator: each defect is named, and clean data have none."""

from __future__ import annotations

import pytest

from infini_eval.datasets.validate import validate
from infini_eval.records import Sample

QUESTION = ". What is the pass key? The pass key is "


def needle(key: str) -> str:
    return f". The pass key is {key}. Remember it. {key} is the pass key. "


def sample(prompt: str, answer: str = "482", name: str = "a") -> Sample:
    return Sample(id=name, prompt=prompt, answer=answer, depth_percent=50.0)


SHOT = (
    "\n Passage: x. The gatecode is {k}. Remember it. {k} is the gatecode. What is the gatecode? The gatecode is {k}.\n"
)
CLEAN = "intro 4820 words" + needle("482") + "more 1482 words" + QUESTION


def test_clean_data() -> None:
    assert validate([sample(CLEAN), sample(SHOT.format(k="77") + CLEAN, name="b")]) == []


@pytest.mark.parametrize(
    ("kind", "prompt", "answer"),
    [
        ("missing_needle", "words" + QUESTION, "482"),
        ("repeated_needle", "a" + needle("482") + "b" + needle("482") + QUESTION, "482"),
        ("answer_leaked", "a" + needle("482") + "it was 482, yes" + QUESTION, "482"),
        ("answer_after_question", CLEAN + "482", "482"),
        ("answer_after_question", CLEAN + "482.", "482"),
        ("shot_key_reused", SHOT.format(k="482") + CLEAN, "482"),
        ("non_numeric_answer", "eat a sandwich", "eat a sandwich"),
    ],
)
def test_each_defect(kind: str, prompt: str, answer: str) -> None:
    (finding,) = validate([sample(prompt, answer), sample(CLEAN, name="fine")])
    assert (finding.kind, finding.count, finding.examples) == (kind, 1, ("a",))
    assert kind in str(finding)


def test_duplicate_ids() -> None:
    (finding,) = validate([sample(CLEAN), sample(CLEAN), sample(CLEAN), sample(CLEAN, name="b")])
    assert (finding.kind, finding.count, finding.examples) == ("duplicate_id", 2, ("a",))


def test_a_number_that_only_contains_the_answer_is_no_leak() -> None:
    assert validate([sample("a" + needle("48") + "1482 and 480" + QUESTION, "48")]) == []
