"""Composed prompts: exact length and depth, the needle whole and where it is said, for all kinds of tokenizers."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infini_eval.api.task import Insert, Recipe, RowInputs
from infini_eval.datasets import english
from infini_eval.datasets.compose import compose
from infini_eval.datasets.haystack import Haystack, build_haystack
from infini_eval.datasets.needle_position import find_passkey, token_span
from infini_eval.datasets.tokenizer import Tokenizer
from infini_eval.errors import DataError
from infini_eval.tasks.passkey import question


def passkey_recipe(depth: float, key: str, shot_keys: tuple[str, ...] = ()) -> Recipe:
    recipe = question(RowInputs(depth, key, shot_keys, random.Random(key), 0, tokenizer=None)).recipe  # type: ignore[arg-type]
    assert recipe is not None
    return recipe


_HAYSTACKS: dict[tuple[str, int], Haystack] = {}


def haystack_for(tokenizer: Tokenizer, tokens: int = 20_000) -> Haystack:
    key = (tokenizer.name, tokens)
    if key not in _HAYSTACKS:
        _HAYSTACKS[key] = build_haystack(english.blocks(5), tokenizer, tokens, name="english")
    return _HAYSTACKS[key]


def smallest(tokenizer: Tokenizer, recipe: Recipe) -> int:
    return tokenizer.count(" ".join([recipe.prefix, *(i.text for i in recipe.inserts), recipe.suffix]))


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_length_depth_and_needle_are_exact(any_tokenizer: Tokenizer, data: st.DataObject) -> None:
    haystack = haystack_for(any_tokenizer)
    digits, shots = data.draw(st.integers(1, 10)), data.draw(st.integers(0, 3))
    depth = data.draw(st.sampled_from([0, 5, 33.3, 50, 95, 99, 100]))
    key = str(10**digits - 1 - data.draw(st.integers(0, 8)))
    made = passkey_recipe(depth, key, tuple("777" + str(i) for i in range(shots)))
    low = smallest(any_tokenizer, made) + 40
    target = data.draw(st.integers(low, low + 6_000))
    start = data.draw(st.integers(0, 500))
    composed = compose(made, haystack, start, target, any_tokenizer)
    ids, offsets = any_tokenizer.encode_with_offsets(composed.text)
    assert len(ids) == composed.tokens == target
    span = find_passkey(composed.text, key)
    assert span == composed.needle_chars[0]
    assert token_span(span, offsets) == composed.needle_tokens[0]
    assert composed.text.count(f"The pass key is {key}. Remember it. {key} is the pass key.") == 1
    longest_word = int(np.diff(haystack.cut_tokens[haystack.words]).max())
    assert abs(composed.depths[0] - depth) <= 100 * 9 * longest_word / composed.haystack_tokens
    if depth in (0, 100):
        assert composed.depths[0] == depth


def test_depth_is_right_within_one_cut(tokenizer: Tokenizer) -> None:
    haystack = haystack_for(tokenizer)
    for depth in range(0, 101, 5):
        composed = compose(passkey_recipe(depth, "12345"), haystack, 7, 2_048, tokenizer)
        origin = haystack.cut_tokens[7]
        wanted = depth / 100 * composed.haystack_tokens
        nearest = np.abs(haystack.cut_tokens[haystack.words] - origin - wanted).min()
        assert abs(composed.depths[0] / 100 * composed.haystack_tokens - wanted) <= nearest + 1e-6


@pytest.mark.parametrize("kind_length", [("byte_bpe_digits", 200_000), ("unigram", 65_536), ("wordpiece", 40_000)])
def test_long_prompts_are_exact(kind_length: tuple[str, int], tokenizer_maker: Callable[[str], Tokenizer]) -> None:
    kind, length = kind_length
    tokenizer = tokenizer_maker(kind)
    haystack = haystack_for(tokenizer, length + 9_000)
    composed = compose(passkey_recipe(62.5, "90210"), haystack, 3, length, tokenizer, verify=False)
    assert tokenizer.count(composed.text) == length == composed.tokens


def test_beyond_256k_the_count_holds_where_tokens_reach_over_spaces(
    tokenizer_maker: Callable[[str], Tokenizer],
) -> None:
    tokenizer, length = tokenizer_maker("super_bpe"), 270_000
    composed = compose(passkey_recipe(30, "90210"), haystack_for(tokenizer, length + 9_000), 3, length, tokenizer)
    assert composed.verified and composed.tokens == length == tokenizer.count(composed.text)
    _, offsets = tokenizer.encode_with_offsets(composed.text)
    assert composed.needle_tokens[0] == token_span(composed.needle_chars[0], offsets)


def test_below_the_smallest_length_is_a_clear_error(tokenizer: Tokenizer) -> None:
    made = passkey_recipe(50, "12345")
    low = smallest(tokenizer, made)
    with pytest.raises(DataError, match=f"{low - 1} tokens are too few"):
        compose(made, haystack_for(tokenizer), 0, low - 1, tokenizer)
    composed = compose(made, haystack_for(tokenizer), 0, low, tokenizer)
    assert tokenizer.count(composed.text) == low
    assert composed.haystack_tokens == 0


def test_several_needles_stand_at_their_depths(bpe: Tokenizer) -> None:
    haystack = haystack_for(bpe)
    depths = (0, 20, 20, 80, 100, 100)
    inserts = tuple(Insert(f". The {name} is here.", d, (2, 16)) for name, d in zip("ABCDEF", depths, strict=True))
    composed = compose(Recipe("Read this:", inserts, ". Which? "), haystack, 0, 3_000, bpe)
    assert bpe.count(composed.text) == 3_000
    assert np.allclose(composed.depths, depths, atol=0.2)
    for (a, b), name in zip(composed.needle_chars, "ABCDEF", strict=True):
        assert composed.text[a:b] == f"The {name} is here."
    _, offsets = bpe.encode_with_offsets(composed.text)
    assert [token_span(span, offsets) for span in composed.needle_chars] == list(composed.needle_tokens)


def test_a_needle_after_a_sentence(tokenizer: Tokenizer) -> None:
    haystack = haystack_for(tokenizer)
    for depth in (0, 20, 70, 100):
        insert = Insert(" Remember the blue door.", depth, (1, 24), after="sentence")
        composed = compose(Recipe("Read this:", (insert,), "\n\nWhich door? "), haystack, 0, 1_000, tokenizer)
        assert tokenizer.count(composed.text) == 1_000
        before = composed.text[: composed.needle_chars[0][0]].rstrip()
        assert before.endswith((".", ":")) or depth == 100


def test_a_needle_stands_after_a_word_where_no_sentence_ends_near(tokenizer_maker: Callable[[str], Tokenizer]) -> None:
    tokenizer = tokenizer_maker("characters")
    text, off = " Remember the blue door.", {}
    for after in ("sentence", "sentence or word"):
        insert = Insert(text, 50, (1, len(text)), after=after)  # type: ignore[arg-type]
        composed = compose(Recipe("Read:", (insert,), "\n\nWhich? "), haystack_for(tokenizer), 0, 240, tokenizer)
        off[after] = abs(composed.depths[0] - 50)
        assert tokenizer.count(composed.text) == 240
    assert off["sentence"] > 5 > off["sentence or word"]


def test_the_haystack_is_left_as_it_is(bpe: Tokenizer) -> None:
    """Only a few words near the end may be left out; all else is the source's text."""
    haystack = haystack_for(bpe)
    composed = compose(passkey_recipe(50, "12345"), haystack, 0, 2_000, bpe)
    body = composed.text.partition("Passage:")[2]
    before, _, after = body.partition(". The pass key is 12345. Remember it. 12345 is the pass key.")
    assert before in haystack.text
    assert after[: len(after) // 2] in haystack.text
    assert "..." not in composed.text and "  " not in composed.text.partition("Passage:")[2]


def test_a_needle_can_be_kept_to_a_place(bpe: Tokenizer) -> None:
    haystack = haystack_for(bpe)
    composed = compose(
        passkey_recipe(50, "12345"), haystack, 0, 2_000, bpe,
        allowed=lambda start, end: (start // 128 == 3) & ((end - 1) // 128 == 3),
    )  # fmt: skip
    start, end = composed.needle_tokens[0]
    assert 3 * 128 <= start < end <= 4 * 128
    with pytest.raises(DataError, match="cannot stand"):
        compose(
            passkey_recipe(50, "12345"), haystack, 0, 2_000, bpe,
            allowed=lambda start, end: start < 0,
        )  # fmt: skip
