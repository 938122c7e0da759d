"""The passkey scorers on replies as chat models write them: the table of docs/data.md, row by row."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infini_eval.records import Sample
from infini_eval.scorers.chat_digits import chat_digits
from infini_eval.scorers.text_match import contains, exact_digits

DOCS = Path(__file__).resolve().parents[2] / "docs" / "data.md"
ROWS = re.findall(
    r"^\| `(\d+)` \| `(.*)` \| (right|wrong) \| (right|wrong) \| (right|wrong) \|", DOCS.read_text(), re.M
)
TEXTS = st.text(alphabet="1234 .,)\nstn\u2009\uff11\uff12", max_size=14)


def asked(answer: str) -> Sample:
    return Sample("1", "", answer, 0.0)


def test_the_table_is_found() -> None:
    assert len(ROWS) >= 15


@pytest.mark.parametrize(("answer", "reply", "exact", "chat", "substring"), ROWS)
def test_documented_examples(answer: str, reply: str, exact: str, chat: str, substring: str) -> None:
    reply = reply.replace("\\n", "\n")
    for scorer, said in ((exact_digits, exact), (chat_digits, chat), (contains, substring)):
        assert scorer(reply, asked(answer)).value == (said == "right"), scorer.__name__


def test_what_was_read_is_recorded_without_separators() -> None:
    assert chat_digits("It is 1,234.", asked("1234")).extracted == "1234"
    assert chat_digits("none", asked("1234")).extracted is None


@settings(max_examples=400, deadline=None)
@given(text=TEXTS, more=TEXTS, answer=st.sampled_from(["12", "1234"]))
def test_what_is_settled_stays(text: str, more: str, answer: str) -> None:
    sample = asked(answer)
    if chat_digits.is_settled(text, sample):
        assert chat_digits(text, sample) == chat_digits(text + more, sample)
        assert chat_digits.is_settled(text + more, sample)


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("1234", False), ("1234\n", True), ("1234.", True), ("1234,", True), ("1. ", False), ("1. 1234 ", True),
        ("123,", False), ("123,45", False), ("12.", False), ("it is 12.", True), ("12st", False),
    ],
)  # fmt: skip
def test_where_it_settles(text: str, ends: bool) -> None:
    assert chat_digits.is_settled(text, asked("1234")) is ends
