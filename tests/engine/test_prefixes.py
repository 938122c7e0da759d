"""What prompts have in common, and the plans made of it, for any prompts: nothing lost, nothing computed twice or too early."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infini_eval.engine.batching import plan_batches, plan_prefill
from infini_eval.engine.prefixes import (
    DIGEST_BYTES,
    border_digests,
    digest_at,
    prefix_spans,
    prefix_tree_order,
    shared_segments,
)

L = 4
# few letters, so that random prompts share prefixes of every length
PROMPTS = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=40), min_size=1, max_size=14)
SIZE = st.one_of(st.none(), st.integers(1, 5))


def whole_segments(prompt: list[int]) -> list[tuple[int, ...]]:
    return [tuple(prompt[end - L : end]) for end in range(L, len(prompt) + 1, L)]


def truly_shared(one: list[int], other: list[int]) -> int:
    pairs = list(zip(whole_segments(one), whole_segments(other), strict=False))
    return next((index for index, (a, b) in enumerate(pairs) if a != b), len(pairs))


def digests_of(prompts: list[list[int]]) -> list[bytes]:
    return [border_digests(np.array(prompt), L) for prompt in prompts]


@given(PROMPTS)
def test_digests_tell_how_many_segments_are_shared(prompts) -> None:
    digests = digests_of(prompts)
    for one, own in zip(prompts, digests, strict=True):
        assert len(own) == len(one) // L * DIGEST_BYTES
        for other, theirs in zip(prompts, digests, strict=True):
            assert shared_segments(own, theirs) == truly_shared(one, other)


def test_digests_do_not_depend_on_the_integer_type() -> None:
    ids = [1, 70_000, 5, 9, 2]
    assert border_digests(np.array(ids, dtype=np.int32), 2) == border_digests(np.array(ids, dtype=np.int64)[::1], 2)


def test_the_needles_of_a_haystack_come_by_depth() -> None:
    haystack = list(range(100, 180))
    depths = [60, 10, 70, 30, 50, 20, 40]
    prompts = [haystack[:depth] + [depth] * (80 - depth) for depth in depths]
    order = prefix_tree_order(digests_of(prompts))
    assert [depths[place] for place in order[:5]] == [10, 20, 30, 40, 50]
    assert {depths[place] for place in order[5:]} == {60, 70}


@given(PROMPTS)
def test_the_walk_keeps_what_shares_a_prefix_together(prompts) -> None:
    digests = digests_of(prompts)
    order = prefix_tree_order(digests)
    assert sorted(order) == list(range(len(prompts)))
    for digest in {digest_at(own, border) for own in digests for border in range(1, len(own) // DIGEST_BYTES + 1)}:
        places = [place for place, row in enumerate(order) if _has(digests[row], digest)]
        assert places == list(range(places[0], places[-1] + 1))


def _has(digests: bytes, digest: bytes) -> bool:
    return any(digest_at(digests, border) == digest for border in range(1, len(digests) // DIGEST_BYTES + 1))


@given(PROMPTS, SIZE, SIZE)
def test_every_row_is_in_one_batch_within_its_bounds(prompts, size, largest) -> None:
    lengths, digests = [len(prompt) for prompt in prompts], digests_of(prompts)
    batches = plan_batches(lengths, L, size, largest, digests)
    assert sorted(row for batch in batches for row in batch.rows) == list(range(len(prompts)))
    assert [batch.priority for batch in batches] == sorted((batch.priority for batch in batches), reverse=True)
    for batch in batches:
        assert len(batch.rows) <= min(size or len(prompts), largest or len(prompts))
        assert len({lengths[row] // L for row in batch.rows}) == 1
        for border, digest in batch.snapshot_points:
            assert any(digest_at(digests[row], border) == digest for row in batch.rows)


@given(st.lists(st.integers(1, 400), min_size=1, max_size=30), SIZE, SIZE)
def test_batches_are_as_ever_where_nothing_is_shared(lengths, size, largest) -> None:
    digests = [border_digests(np.arange(length) + 1000 * row, L) for row, length in enumerate(lengths)]
    assert plan_batches(lengths, L, size, largest, digests) == plan_batches(lengths, L, size, largest)


@given(PROMPTS, st.integers(1, 20), st.data())
def test_steps_read_every_token_of_every_prompt_once(prompts, chunk, data) -> None:
    whole = len(prompts[0]) // L
    alike = [prompt for prompt in prompts if len(prompt) // L == whole]
    digests, lengths = digests_of(alike), [len(prompt) for prompt in alike]
    starts = [data.draw(st.integers(0, (length - 1) // L)) for length in lengths]
    steps = plan_prefill(lengths, L, lambda rows: chunk, prefix_spans(digests, starts))
    read = [start * L for start in starts]
    for step in steps:
        assert len(set(step.rows)) == len(step.rows)
        for prompt, row in enumerate(step.row_of_prompt):
            if row is None:
                assert step.start < starts[prompt] * L
                continue
            reader, end = step.rows[row], step.start + step.tokens
            assert read[prompt] == step.start or step.start >= lengths[prompt]
            if step.segments:
                assert alike[reader][starts[prompt] * L : end] == alike[prompt][starts[prompt] * L : end]
            else:
                assert reader == prompt
            read[prompt] = min(end, lengths[prompt])
        if step.segments:  # rows that are alike so far are one row
            assert len({digest_at(digests[row], (step.start + step.tokens) // L) for row in step.rows}) == len(
                step.rows
            )
    assert read == lengths


def test_a_group_is_cut_so_that_replicas_can_share_it() -> None:
    length, segment = 1 << 19, 4096
    haystack = np.arange(length, dtype=np.int32)
    prompts = [np.concatenate([haystack[:start], -haystack[start:]]) for start in range(0, length, length // 10)]
    digests = [border_digests(prompt, segment) for prompt in prompts]
    batches = plan_batches([length] * len(prompts), segment, prefixes=digests)
    assert max(batch.cost for batch in batches) <= 2 * length
    assert len(batches) >= 5
    related = [batch for batch in batches if batch.schedule_cost is not None]
    assert all(batch.snapshot_points for batch in related[:-1]) and not related[-1].snapshot_points


@pytest.mark.parametrize("batch_size", [None, 4])
def test_the_cost_is_what_is_computed(batch_size: int | None) -> None:
    haystack = list(range(400))
    prompts = [haystack[:depth] + [1000 + depth] * (401 - depth) for depth in range(40, 400, 40)]
    lengths, digests = [len(prompt) for prompt in prompts], digests_of(prompts)
    for batch in plan_batches(lengths, L, batch_size, prefixes=digests):
        own, rows = [digests[row] for row in batch.rows], [lengths[row] for row in batch.rows]
        steps = plan_prefill(rows, L, lambda _: 8, prefix_spans(own, [0] * len(rows)))
        assert sum(sum(step.counts) for step in steps) == batch.cost
