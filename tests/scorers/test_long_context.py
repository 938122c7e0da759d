"""Scorers of published tasks, against independent statements of their rules on 10,000 random answers each."""

from __future__ import annotations

import difflib
import random
from typing import Any

import pytest

from infini_eval.api import registry
from infini_eval.records import Sample

ANSWERS = 10_000


def sample(answer: str = "", **columns: Any) -> Sample:
    return Sample("a", "", answer, 0.0, columns=columns)


# ---- set_f1


def reference_f1(answer: str, right: list[str]) -> float:
    """The data card's rule by hand: the last line's list, then precision and recall of the two sets."""
    lines = answer.split("\n")
    last = lines[len(lines) - 1]
    if "Final Answer:" not in last or "[" not in last or "]" not in last[last.index("[") :]:
        return 0.0
    inside = last[last.index("[") : last.rindex("]") + 1]
    while inside[:1] in ("[", "]"):
        inside = inside[1:]
    while inside[-1:] in ("[", "]"):
        inside = inside[:-1]
    said = [name.strip() for name in inside.split(",")]
    said = sorted({name for name in said if name})
    if not said and not right:
        return 1.0
    hits = sum(name in right for name in said)
    if not hits:
        return 0.0
    precision, recall = hits / len(said), hits / len(set(right))
    return 2 * precision * recall / (precision + recall)


def test_set_f1_is_the_published_rule() -> None:
    judge, draw = registry.scorer("set_f1"), random.Random(5)
    values = set()
    for _ in range(ANSWERS):
        right = draw.sample("abcdef", draw.randrange(4))
        pieces = ["Final Answer:", "Final Answer: [", "[", "]", "a", "b", " c", "d", ",", ", ", "\n", " ", "]", "x"]
        if draw.random() < 0.7:
            inner = draw.choice([",", ", ", " , "]).join(draw.choices("abcdefgh", k=draw.randrange(5)))
            text = draw.choice(["", "So:", "x\n"]) + f"Final Answer: [{inner}]" + draw.choice(["", ".", " ", "\n"])
        else:
            text = "".join(draw.choices(pieces, k=draw.randrange(9)))
        value = judge(text, sample(outputs=right)).value
        assert value == pytest.approx(reference_f1(text, right), abs=1e-12), (text, right)
        values.add(round(value, 2))
    assert len(values) > 6  # the random answers are not all right or all wrong


@pytest.mark.parametrize(
    ("text", "right", "value"),
    [
        ("Final Answer: [a, b]", ["b", "a"], 1.0),
        ("thinking\nFinal Answer: [a]", ["a", "b"], 2 / 3),
        ("Final Answer: []", [], 1.0),
        ("Final Answer: []", ["a"], 0.0),
        ("Final Answer: [a]\n", ["a"], 0.0),
        ("Final Answer: a", ["a"], 0.0),
    ],
)
def test_set_f1_by_hand(text: str, right: list[str], value: float) -> None:
    assert registry.scorer("set_f1")(text, sample(outputs=right)).value == pytest.approx(value)


# ---- only_label


def reference_label(target: str, answer: str, question: str, labels: list[str]) -> bool:
    """The paper's rule by hand: one label in the first sentence, those of the question left out, and it is the target."""
    low = answer.lower()
    ends = [low.index(mark) for mark in (".", "<context>", "<example>") if mark in low]
    low = low[: min(ends)] if ends else low
    left = []
    for label in labels:
        if low.count(label.lower()) and not question.lower().count(label.lower()):
            left.append(label.lower())
    return len(left) == 1 and left[0] == target.lower()


def test_only_label_is_the_published_rule() -> None:
    judge, draw = registry.scorer("only_label"), random.Random(6)
    labels = ["Bill", "Fred", "Jeff", "Mary", "apple", "football", "milk"]
    pieces = [
        *labels,
        "the ",
        " ",
        ". ",
        ".",
        "<context>",
        "<example>",
        "FRED",
        "mi",
        "lk",
        "\n",
        "Answer: ",
        "pineapples",
    ]
    right = 0
    for _ in range(ANSWERS):
        target = draw.choice(labels)
        question = " ".join(["Who", *draw.sample(labels, draw.randrange(3)), "?"])
        text = "".join(draw.choices([*pieces, target, target], k=draw.randrange(6)))
        value = judge(text, sample(target, question=question, labels=labels)).value
        assert value == float(reference_label(target, text, question, labels)), (text, target, question)
        right += value
    assert 500 < right < ANSWERS - 500


def test_only_label_is_settled_when_its_sentence_has_ended() -> None:
    judge, draw = registry.scorer("only_label"), random.Random(7)
    asked = sample("milk", question="What?", labels=["milk", "apple"])
    assert not judge.is_settled(" milk", asked) and judge.is_settled(" milk.", asked)
    for _ in range(2_000):
        text = "".join(draw.choices([".", "milk", "apple", "<ex", "ample>", "<context>", " "], k=4))
        more = text + draw.choice(["milk", "apple", ".", "<example>"])
        if judge.is_settled(text, asked):
            assert judge(text, asked).value == judge(more, asked).value


# ---- prefixed_ratio


def reference_ratio(answer: str, right: str, prefix: str) -> float:
    """The data card's rule by hand: twice the characters in matching blocks over all, behind the prefix."""
    if answer[: len(prefix)] != prefix:
        return 0.0
    said, wanted = answer[len(prefix) :], right[len(prefix) :]
    if not said and not wanted:
        return 1.0
    blocks = difflib.SequenceMatcher(isjunk=None, a=said, b=wanted).get_matching_blocks()
    return 2.0 * sum(block.size for block in blocks) / (len(said) + len(wanted))


def test_prefixed_ratio_is_the_published_rule() -> None:
    judge, draw = registry.scorer("prefixed_ratio"), random.Random(8)
    graded = 0
    for _ in range(ANSWERS):
        prefix = "".join(draw.choices("aB", k=2))
        right = prefix + "".join(draw.choices("ab c", k=draw.randrange(12)))
        beginning = draw.choice([prefix, prefix, prefix + prefix, "", "aB", prefix.lower()])
        text = beginning + "".join(draw.choices("ab c\n", k=draw.randrange(12)))
        if text[:1].isspace():
            continue
        value = judge(text, sample(right, random_string_to_prepend=prefix)).value
        assert value == pytest.approx(reference_ratio(text, right, prefix), abs=1e-12), (text, right)
        graded += 0 < value < 1
        assert judge(f" {text}", sample(right, random_string_to_prepend=prefix)).value == value  # a completion's space
    assert graded > ANSWERS / 3


def test_prefixed_ratio_is_settled_by_another_beginning() -> None:
    judge, asked = registry.scorer("prefixed_ratio"), sample("aB3Tin", random_string_to_prepend="aB3")
    assert [judge.is_settled(text, asked) for text in ("", " ", " aB", "aB3", "aB3Ti", "Tin", " ab")] == [
        False, False, False, False, False, True, True,
    ]  # fmt: skip


# ---- choice_letter


def reference_letter(answer: str) -> str:
    """The published rule by hand: without asterisks, the first letter in brackets behind the phrase, else the first without."""
    phrase, plain = "The correct answer is ", "".join(character for character in answer if character != "*")
    found = ["", ""]
    for start in range(len(plain)):
        if plain[start : start + len(phrase)] != phrase:
            continue
        rest = plain[start + len(phrase) :]
        if not found[0] and rest[:1] == "(" and rest[1:2] in tuple("ABCD") and rest[2:3] == ")":
            found[0] = rest[1]
        if not found[1] and rest[:1] in tuple("ABCD"):
            found[1] = rest[0]
    return found[0] or found[1]


def test_choice_letter_is_the_published_rule() -> None:
    judge, draw = registry.scorer("choice_letter"), random.Random(9)
    pieces = [
        "The correct answer is ",
        "The correct answer is (",
        "(A)",
        "B)",
        "C",
        "**",
        "D",
        " E",
        ")",
        "\n",
        "the correct",
    ]
    right = 0
    for _ in range(ANSWERS):
        text, letter = "".join(draw.choices(pieces, k=draw.randrange(7))), draw.choice("ABCD")
        score = judge(text, sample(letter=letter))
        assert (score.extracted or "") == reference_letter(text), text
        assert score.value == float(reference_letter(text) == letter)
        right += score.value
    assert right > 200


def test_choice_letter_is_settled_by_a_letter_in_brackets() -> None:
    judge, asked = registry.scorer("choice_letter"), sample(letter="A")
    said = ("", "The correct answer is A", "The correct answer is (A", "The correct answer is **(A)**")
    assert [judge.is_settled(text, asked) for text in said] == [False, False, False, True]
    assert judge.is_settled("", sample(letter="A", likeliest_of=["A", "B"]))
