"""Where a wrong number comes from."""

from __future__ import annotations

import pytest

from infini_eval.datasets.number_source import number_source

PROMPT = (
    "Passage: A tram. The gatecode is 5044. Remember it. What is the gatecode? The gatecode is 5044. "
    "Passage: Room 4711 is shut. The pass key is 1234. Remember it. 1234 is the pass key. The pass key is "
)


@pytest.mark.parametrize(
    ("generation", "source"),
    [
        ("5044", "shot"), (" 4711.", "prompt"), ("999", "nowhere"), ("471", "nowhere"), ("1234", None), ("", None),
        ("no number", None), ("x" * 20_000 + "5044", None),
    ],
)  # fmt: skip
def test_source(generation, source):
    assert number_source(PROMPT, "1234", generation) == source


def test_words_have_no_source():
    assert number_source(PROMPT, "blue", "5044") is None
