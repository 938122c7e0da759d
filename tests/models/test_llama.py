"""The last layer of a prefill: only tokens whose output is read are attended, and the state is that of the whole layer."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from infini_eval.engine.native_model import NativeModel, load_model
from infini_eval.testing.tiny_models import tiny_config, tiny_qwen2_config, write_tiny_checkpoint

BATCH, SEGMENT = 3, 8
KINDS = {
    "infini": {},
    "grouped": {"num_key_value_heads": 2},
    "plain-query": {"memory_query": "plain"},
    "ablated": {"memory": "ablate"},
    "off": {"memory": "off"},
    "llama": {"infini": False},
    "qwen2, a window last": {"attention_bias": True, "sliding_window_size": 3, "no_rope_layer": 3},
    "qwen2, no rotary last": {"attention_bias": True, "sliding_window_size": 3, "no_rope_layer": 2},
}


@pytest.fixture(params=KINDS)
def model(request, tmp_path) -> NativeModel:
    changes = dict(KINDS[request.param])
    memory = changes.pop("memory", None)
    config = tiny_qwen2_config(**changes) if "qwen2" in request.param else tiny_config(**changes)
    return load_model(write_tiny_checkpoint(tmp_path, config, seed=3), memory=memory, device="cpu")


def states_after(model: NativeModel, prefix: torch.Tensor | None) -> list:
    """Two equal states that have read `prefix` [B, T]: a whole number of segments where there are any."""
    states = []
    for _ in range(2):
        state = model.llama.new_state(BATCH, 64)
        if prefix is not None:
            cursor = state.cursor
            tail = cursor.segment_length is None
            step = cursor.step_tail(prefix.shape[1]) if tail else cursor.step_segments(prefix.shape[1] // SEGMENT)
            model.llama.run_layers(model.llama.embed(prefix), state, step)
        states.append(state)
    return states


def assert_same_state(one, other) -> None:
    for mine, theirs in zip(one.layers, other.layers, strict=True):
        for name in ("memory", "keys", "values"):
            a, b = getattr(mine, name), getattr(theirs, name)
            assert (a is None) == (b is None), name
            if a is not None:
                assert_close(a, b, atol=1e-5, rtol=1e-5)
    assert one.cursor.segments == other.cursor.segments and one.cursor.open_lengths == other.cursor.open_lengths


@torch.inference_mode()
@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("counts", [(5, 5, 5), (5, 2, 0), (8, 8, 8), (8, 3, 1), (1, 1, 1)])
def test_ends_are_those_of_the_whole_step(model, before, counts) -> None:
    generator = torch.Generator().manual_seed(sum(counts) + before)
    ids = torch.randint(0, 96, (BATCH, 2 * SEGMENT), generator=generator)
    whole, ends = states_after(model, ids[:, :SEGMENT] if before else None)
    tokens = max(counts)
    x = model.llama.embed(ids[:, SEGMENT : SEGMENT + tokens])
    end_B = torch.tensor([max(0, count - 1) for count in counts])
    expected = model.llama.run_layers(x, whole, whole.cursor.step_tail(tokens, counts))[torch.arange(BATCH), end_B]
    got = model.llama.run_layers_to_ends(x, ends, ends.cursor.step_tail(tokens, counts), end_B)
    assert_close(got, expected, atol=1e-5, rtol=1e-5)
    assert_same_state(whole, ends)


@torch.inference_mode()
@pytest.mark.parametrize("before", [0, 1])
def test_a_step_that_nobody_reads_leaves_the_same_state(model, before) -> None:
    ids = torch.randint(0, 96, (BATCH, 3 * SEGMENT), generator=torch.Generator().manual_seed(before))
    whole, ends = states_after(model, ids[:, :SEGMENT] if before else None)
    x = model.llama.embed(ids[:, SEGMENT:])
    make = (lambda c: c.step_segments(2)) if whole.cursor.segment_length else (lambda c: c.step_tail(2 * SEGMENT))
    model.llama.run_layers(x, whole, make(whole.cursor))
    assert model.llama.run_layers_to_ends(x, ends, make(ends.cursor), None) is None
    assert_same_state(whole, ends)


@torch.inference_mode()
def test_a_prompt_may_end_with_a_segment(model) -> None:
    if model.config.segment_length is None:
        pytest.skip("a model without segments")
    ids = torch.randint(0, 96, (BATCH, 2 * SEGMENT), generator=torch.Generator().manual_seed(1))
    whole, ends = states_after(model, None)
    x, end_B = model.llama.embed(ids), torch.tensor([15, 7, 11])
    expected = model.llama.run_layers(x, whole, whole.cursor.step_segments(2))[torch.arange(BATCH), end_B]
    assert_close(model.llama.run_layers_to_ends(x, ends, ends.cursor.step_segments(2), end_B), expected)
    assert_same_state(whole, ends)
