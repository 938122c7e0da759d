"""Decoding with fixed shapes gives the tokens of the step that sees just the open keys, over borders, for rows of any length."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.config import ModelSettings
from infini_eval.engine.fixed_decode import FixedDecoders, check_acceleration, run_eagerly
from infini_eval.engine.generation import SampledTokenQueue
from infini_eval.engine.native_model import NativeModel
from infini_eval.errors import BackendError, ConfigError
from infini_eval.testing.tiny_models import tiny_config, tiny_qwen2_config, write_tiny_checkpoint

LENGTH = 16
KINDS = {
    "infini": tiny_config(segment_length=LENGTH),
    "grouped heads": tiny_config(segment_length=LENGTH, num_key_value_heads=2),
    "plain": tiny_config(infini=False),
    "windows": tiny_qwen2_config(sliding_window_size=LENGTH - 3, no_rope_layer=2, attention_bias=True),
}


@pytest.fixture(params=KINDS)
def checkpoint(request, tmp_path) -> Checkpoint:
    return Checkpoint(write_tiny_checkpoint(tmp_path / "model", KINDS[request.param]))


def load(checkpoint: Checkpoint, **settings) -> NativeModel:
    return NativeModel.load(checkpoint, ModelSettings(device="cpu", **settings))


def with_fixed_steps(checkpoint: Checkpoint, record=run_eagerly) -> NativeModel:
    model = load(checkpoint)
    model.decoders = FixedDecoders(model.llama, record)
    return model


def prompts(*lengths: int) -> list[np.ndarray]:
    draw = np.random.default_rng(sum(lengths))
    return [draw.integers(3, 90, length, dtype=np.int32) for length in lengths]


# within the first segment, at a border, one before and after it, and rows of several lengths at once
@pytest.mark.parametrize("lengths", [(5,), (16,), (31,), (33,), (40, 37, 44), (16, 63, 7)])
def test_same_tokens_over_several_borders(checkpoint: Checkpoint, lengths: tuple[int, ...]) -> None:
    asked = prompts(*lengths)
    expected = load(checkpoint).generate(asked, 3 * LENGTH, stop_ids=())
    assert with_fixed_steps(checkpoint).generate(asked, 3 * LENGTH, stop_ids=()) == expected


def test_logits_are_those_of_the_eager_step(checkpoint: Checkpoint) -> None:
    model = load(checkpoint)
    llama, ids = model.llama, torch.from_numpy(prompts(LENGTH + 5)[0].astype(np.int64))
    with torch.inference_mode():
        eager, other = (read(model, ids) for _ in range(2))
        fixed = FixedDecoders(llama, run_eagerly).step_for(other, 100)
        for token in range(3, 3 + LENGTH):
            tokens_B = torch.tensor([token])
            x_B1D = llama.run_layers(llama.embed(tokens_B[:, None]), eager, eager.cursor.step_tail(1))
            torch.testing.assert_close(fixed.next_logits(tokens_B), llama.logits(x_B1D[:, -1]), rtol=0, atol=1e-5)


def read(model: NativeModel, ids: torch.Tensor):
    """The state after `ids` [T], token by token."""
    state = model.llama.new_state(1, 100)
    for token in ids:
        model.llama.run_layers(model.llama.embed(token.view(1, 1)), state, state.cursor.step_tail(1))
    return state


def test_a_step_is_recorded_once_for_batches_of_a_size(checkpoint: Checkpoint) -> None:
    recorded = []

    def record(step):
        recorded.append(step)
        for _ in range(3):  # as the recording of a graph does, which spoils the state
            step()
        return step

    asked = prompts(20, 20, 36, 36, 50, 50)
    expected = load(checkpoint).generate(asked, 20, stop_ids=(), batch_size=2)
    assert with_fixed_steps(checkpoint, record).generate(asked, 20, stop_ids=(), batch_size=2) == expected
    assert len(recorded) == 1


def test_what_a_batch_left_behind_does_no_harm(checkpoint: Checkpoint) -> None:
    model = with_fixed_steps(checkpoint)
    asked = prompts(LENGTH + 3)
    expected = model.generate(asked, 5, stop_ids=())
    with torch.inference_mode():
        for layer in model.decoders._latest._state.layers:
            for tensor in (layer.keys, layer.values, layer.raw_keys, layer.memory):
                if tensor is not None:
                    tensor.fill_(float("nan"))
    assert model.generate(asked, 5, stop_ids=()) == expected


@pytest.mark.parametrize("lag", [0, 1, 2])
def test_reading_tokens_late_changes_no_answer(checkpoint: Checkpoint, lag: int, monkeypatch) -> None:
    asked = prompts(20, 23)
    free = load(checkpoint).generate(asked, 9, stop_ids=())
    stops = {free[0][4], free[1][2]}
    expected = load(checkpoint).generate(asked, 9, stop_ids=stops)
    monkeypatch.setattr("infini_eval.engine.generation.SampledTokenQueue", lambda _: SampledTokenQueue(lag))
    assert load(checkpoint).generate(asked, 9, stop_ids=()) == free
    assert load(checkpoint).generate(asked, 9, stop_ids=stops) == expected
    assert with_fixed_steps(checkpoint).generate(asked, 9, stop_ids=stops) == expected


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler: torch.compile needs one on a CPU")
def test_compiled_steps_give_the_same_tokens(tmp_path) -> None:
    sizes = {"segment_length": LENGTH, "num_hidden_layers": 2}
    checkpoint = Checkpoint(write_tiny_checkpoint(tmp_path / "model", tiny_config(**sizes)))
    asked = prompts(2 * LENGTH + 5)
    expected = load(checkpoint).generate(asked, LENGTH, stop_ids=())
    model = load(checkpoint, compile=True, chunk_segments=1)
    assert model.generate(asked, LENGTH, stop_ids=()) == expected
    assert model.decoders._latest is not None


def test_what_cannot_work_here_is_said_before_loading(monkeypatch) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    with pytest.raises(ConfigError, match="--cuda-graphs on a CPU"):
        check_acceleration(ModelSettings(cuda_graphs=True), cpu, 1, 1)
    with pytest.raises(ConfigError, match="tp=2 pp=1"):
        check_acceleration(ModelSettings(cuda_graphs=True), cuda, 2, 1)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(BackendError, match="no-such-compiler"):
        check_acceleration(ModelSettings(compile=True), cpu, 1, 1)
    check_acceleration(ModelSettings(), cpu, 2, 2)


def test_nothing_is_fixed_unless_asked_for(checkpoint: Checkpoint) -> None:
    assert load(checkpoint).decoders is None
