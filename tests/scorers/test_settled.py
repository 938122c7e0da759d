"""What is settled stays: a score taken where a scorer says so is the score of any text that begins there."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infini_eval.api import registry
from infini_eval.records import Sample

SETTLING = (
    *("chat_digits", "choice_letter", "contains", "exact_digits", "exact_match", "only_label", "prefixed_ratio"),
    *("string_match_all", "string_match_part"),
)
TEXTS = st.text(alphabet="1234 .,\nabcAB(", max_size=14)
SAMPLE = Sample("1", "", "12", 0.0, columns={"outputs": '["12", "ab c"]'})


def test_the_others_want_the_whole_text() -> None:
    settling = [name for name in registry.names("scorers") if registry.scorer(name).can_settle]
    assert tuple(settling) == SETTLING


@pytest.mark.parametrize("name", SETTLING)
@settings(max_examples=400, deadline=None)
@given(text=TEXTS, more=TEXTS)
def test_no_further_text_changes_a_settled_score(name: str, text: str, more: str) -> None:
    score = registry.scorer(name)
    settled = score.is_settled
    if settled(text, SAMPLE):
        assert score(text, SAMPLE).value == score(text + more, SAMPLE).value
        assert settled(text + more, SAMPLE)


@pytest.mark.parametrize(
    ("name", "open_text", "settled_text"),
    [
        ("exact_digits", "the key is 12", "the key is 12."),
        ("exact_digits", "the key is", "the key is 9 "),
        ("contains", "it is 1", "it is 12"),
        ("exact_match", " 12", "12 a"),
        ("exact_match", "A", "ad"),
        ("string_match_all", "12 and ab", "AB c and 12"),
        ("string_match_part", "1, 2, ab", "1, 2, ab c"),
    ],
)
def test_where_each_scorer_settles(name: str, open_text: str, settled_text: str) -> None:
    settled = registry.scorer(name).is_settled
    assert not settled(open_text, SAMPLE)
    assert settled(settled_text, SAMPLE)
