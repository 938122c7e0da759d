"""The validator: each defect is named, and clean data have none."""

from __future__ import annotations

import pytest

from infini_eval.datasets.validate import off_labels, validate
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


def labelled(depth: float, prompt: str = CLEAN, **columns: object) -> Sample:
    return Sample("a", prompt, "482", depth, columns=columns)


def test_labels_that_are_off() -> None:
    (finding,) = off_labels([labelled(50, real_depth=55.1), labelled(50, real_depth=54.9), labelled(0, real_depth=2)])
    assert (finding.kind, finding.count) == ("off_label", 1) and "more than 5 points" in str(finding)
    assert validate([labelled(50, real_depth=0.0)]) == []  # no defect: it is a right prompt with a wrong label
    assert off_labels([labelled(50, real_depth=0.0, control="no-context")]) == []
    assert off_labels([labelled(50, real_depth=0.0, outputs='["1", "2"]')]) == []
    assert off_labels([labelled(float("nan"), real_depth=0.0)]) == []


def test_the_wording_tells_the_depth_of_foreign_data() -> None:
    prompt = f"intro\n Passage: {'word ' * 30}{needle('482').strip()} {'word ' * 10}{QUESTION}"
    assert [len(off_labels([labelled(depth, prompt)])) for depth in (0, 70, 75, 85, 100)] == [1, 0, 0, 1, 1]
    assert off_labels([labelled(0, CLEAN)]) == []  # nothing says where its haystack begins
