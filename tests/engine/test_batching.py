"""Plans, for any lengths: each row in one batch, each token in one step, borders never crossed, batches alike everywhere."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from infini_eval.engine.batching import plan_batches, plan_prefill

LENGTHS = st.lists(st.integers(1, 400), min_size=1, max_size=40)
SEGMENT = st.one_of(st.none(), st.integers(1, 64))


@given(LENGTHS, SEGMENT, st.one_of(st.none(), st.integers(1, 9)), st.one_of(st.none(), st.integers(1, 9)))
def test_every_row_is_in_one_batch(lengths, segment, size, largest) -> None:
    batches = plan_batches(lengths, segment, size, largest)
    assert sorted(row for batch in batches for row in batch.rows) == list(range(len(lengths)))
    assert [batch.cost for batch in batches] == sorted((batch.cost for batch in batches), reverse=True)
    for batch in batches:
        assert len(batch.rows) <= min(size or len(lengths), largest or len(lengths))
        if segment is not None:
            assert len({lengths[row] // segment for row in batch.rows}) == 1


@given(st.data(), st.integers(1, 64), st.integers(1, 200))
def test_prefill_steps_cover_every_token_and_cross_no_border(data, segment: int, chunk: int) -> None:
    whole = data.draw(st.integers(0, 6))
    rests = data.draw(
        st.lists(st.integers(0 if whole else 1, segment - 1 if whole else segment), min_size=1, max_size=5)
    )
    rests = [min(rest, segment - 1) if whole or segment > 1 else rest for rest in rests]
    lengths = [max(1, whole * segment + rest) for rest in rests]
    if len({length // segment for length in lengths}) > 1:
        return  # never planned together
    steps = plan_prefill(lengths, segment, chunk)
    place = 0
    for step in steps:
        assert step.start == place
        place += step.tokens
        if step.segments:
            assert step.start % segment == 0 and step.tokens == step.segments * segment
            assert set(step.counts) == {step.tokens}
        else:
            assert step.start // segment == (step.start + step.tokens - 1) // segment
    for row, length in enumerate(lengths):
        assert sum(step.counts[row] for step in steps) == length
        assert [row in step.ending for step in steps].count(True) == 1
