"""Scorers of published tasks, against independent statements of their rules on 10,000 random answers each."""

from __future__ import annotations

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
