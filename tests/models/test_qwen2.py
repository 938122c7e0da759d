"""Dense Qwen2: random models that combine biases, layers without rotary, windows and interpolation, against the naive one.

What nanotron itself computed with one feature at a time is compared in test_parity.py.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch.testing import assert_close

from infini_eval.checkpoint.layout import parameter_specs
from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.checkpoint.writer import write_checkpoint
from infini_eval.config import ModelSettings
from infini_eval.engine.fixed_decode import FixedDecoders, run_eagerly
from infini_eval.engine.native_model import NativeModel
from infini_eval.errors import CheckpointError
from infini_eval.models.naive import naive_logits
from infini_eval.models.state import Window
from infini_eval.testing.tiny_models import tiny_qwen2_config, write_tiny_checkpoint

COMBINED = {
    "all of it": {
        "attention_bias": True,
        "no_rope_layer": 2,
        "sliding_window_size": 5,
        "rope_seq_len_interpolation_factor": 2.5,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
    "interleaved": {
        "attention_bias": True,
        "no_rope_layer": 3,
        "sliding_window_size": 7,
        "rope_interleaved": True,
        "num_key_value_heads": 1,
    },
    "windows everywhere": {"sliding_window_size": 9, "rope_seq_len_interpolation_factor": 4},
    "a window of itself": {"sliding_window_size": 1, "attention_bias": True, "no_rope_layer": 4},
    "no rotary, so no window": {"no_rope_layer": 1, "sliding_window_size": 4, "attention_bias": True},
    "a window that never ends": {"sliding_window_size": 1000, "no_rope_layer": 3},
}
CHUNKS = (3, 16, 1024)  # tokens of a prefill step
LENGTHS = (1, 4, 5, 6, 15, 16, 17, 33, 41)
NEW_TOKENS = 13


@pytest.fixture(scope="module", params=COMBINED)
def checkpoint(request, tmp_path_factory) -> Checkpoint:
    config = tiny_qwen2_config(**COMBINED[request.param])
    return Checkpoint(
        write_tiny_checkpoint(
            tmp_path_factory.mktemp("qwen2") / "1",
            config,
            tp=1 if config["model"]["model_config"]["num_key_value_heads"] == 1 else 2,
        )
    )


@pytest.fixture(params=CHUNKS)
def chunk(request, monkeypatch) -> int:
    monkeypatch.setattr(NativeModel, "chunk_tokens", lambda self, rows: request.param)
    monkeypatch.setattr("infini_eval.config.WINDOW_BLOCK", (2, 4))  # so that these short steps have several blocks
    return request.param


def load(checkpoint: Checkpoint, **settings) -> NativeModel:
    return NativeModel.load(checkpoint, ModelSettings(dtype="float32", device="cpu", **settings))


def naive(checkpoint: Checkpoint, ids: torch.Tensor) -> torch.Tensor:
    weights = {name: checkpoint.read(name) for name in checkpoint.specs}
    return naive_logits(weights, checkpoint.config, ids, memory="off", memory_query="rotary")


def drawn_ids(*shape: int) -> torch.Tensor:
    return torch.randint(3, 90, shape, generator=torch.Generator().manual_seed(sum(shape)))


def greedy(checkpoint: Checkpoint, prompt: torch.Tensor) -> list[int]:
    ids = prompt[None]
    for _ in range(NEW_TOKENS):
        ids = torch.cat([ids, naive(checkpoint, ids)[:, -1:].argmax(-1)], dim=1)
    return ids[0, len(prompt) :].tolist()


@pytest.fixture(scope="module")
def asked(checkpoint) -> tuple[list[torch.Tensor], list[list[int]]]:
    """Prompts of many lengths, and the naive model's answers."""
    prompts = [drawn_ids(length) for length in LENGTHS]
    return prompts, [greedy(checkpoint, prompt) for prompt in prompts]


@pytest.mark.parametrize("tokens", [1, 6, 29, 77])
def test_logits_equal_the_naive_ones_in_chunks_of_any_size(checkpoint, chunk, tokens) -> None:
    ids = drawn_ids(2, tokens)
    assert_close(load(checkpoint).logits(ids), naive(checkpoint, ids), atol=1e-4, rtol=0)


@pytest.mark.parametrize("batch_size", [1, 4, 16])
def test_answers_equal_the_naive_ones_in_batches_of_unequal_rows(checkpoint, asked, chunk, batch_size) -> None:
    prompts, expected = asked
    assert load(checkpoint).generate(prompts, NEW_TOKENS, stop_ids=(), batch_size=batch_size) == expected


@pytest.mark.parametrize("batch_size", [1, 4])
def test_fixed_steps_give_the_same_answers(checkpoint, asked, chunk, batch_size) -> None:
    prompts, expected = asked
    model = load(checkpoint)
    model.decoders = FixedDecoders(model.llama, run_eagerly)
    assert model.generate(prompts, NEW_TOKENS, stop_ids=(), batch_size=batch_size) == expected


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler: torch.compile needs one on a CPU")
def test_compiled_steps_give_the_same_answers(tmp_path) -> None:
    config = tiny_qwen2_config(num_hidden_layers=2, **COMBINED["all of it"])
    checkpoint = Checkpoint(write_tiny_checkpoint(tmp_path / "1", config))
    prompts = [drawn_ids(33)]
    answers = load(checkpoint, compile=True).generate(prompts, NEW_TOKENS, stop_ids=())
    assert answers == [greedy(checkpoint, prompts[0])]


@pytest.mark.parametrize(("stored", "dtype"), [("bfloat16", torch.bfloat16), ("float16", torch.float16)])
def test_weights_and_biases_may_have_another_dtype_on_disk(tmp_path, stored, dtype) -> None:
    config = tiny_qwen2_config(**COMBINED["all of it"])
    first = Checkpoint(write_tiny_checkpoint(tmp_path / "1", config))
    config["model"]["dtype"] = stored
    halved = {name: first.read(name).to(dtype) for name in first.specs}
    checkpoint = Checkpoint(write_checkpoint(tmp_path / "2", halved, config, tp=2, pp=2))
    assert checkpoint.stored_dtype == dtype and checkpoint.config.dtype == stored
    ids = drawn_ids(2, 40)
    assert_close(load(checkpoint).logits(ids), naive(checkpoint, ids), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "key", ["attention_bias", "no_rope_layer", "sliding_window_size", "rope_seq_len_interpolation_factor"]
)
def test_each_feature_moves_the_logits(tmp_path, key) -> None:
    ids, features = drawn_ids(1, 40), COMBINED["all of it"]
    found = []
    for changes in (features, {**features, key: None}):
        path = write_tiny_checkpoint(tmp_path / str(len(found)), tiny_qwen2_config(**changes))
        found.append(load(Checkpoint(path)).logits(ids))
    assert (found[0] - found[1]).abs().max() > 0.1


def test_layers_with_a_window_keep_no_more_than_it_and_a_step(tmp_path) -> None:
    config = tiny_qwen2_config(sliding_window_size=8, no_rope_layer=4, num_key_value_heads=2)
    llama = load(Checkpoint(write_tiny_checkpoint(tmp_path / "1", config))).llama
    state = llama.new_state(2, 10_000, step_tokens=16)
    for layer in state.layers:
        layer.open_segment()
    assert [layer.keys.shape[1] for layer in state.layers] == [24, 24, 24, 10_000]
    assert state.nbytes() == 2 * 4 * 2 * 2 * 8 * (3 * 24 + 10_000)  # keys and values, fp32, rows, kv heads, width


def test_a_window_is_bounded_by_the_longest_sequence() -> None:
    assert Window.of(8, capacity=20, step_tokens=16).ring == 20
    assert Window.of(8, capacity=1 << 40, step_tokens=16).ring == 24


def test_no_mask_over_all_keys_is_made_where_every_layer_has_a_window(tmp_path) -> None:
    path = write_tiny_checkpoint(tmp_path / "1", tiny_qwen2_config(sliding_window_size=8))
    cursor = load(Checkpoint(path)).llama.new_state(1, 10_000, step_tokens=16).cursor
    cursor.step_tail(16)
    step = cursor.step_tail(16)
    assert step.mask is None and step.window.mask.shape == (16, 8 - 1 + 16)


def test_every_saved_topology_holds_the_same_biases(tmp_path) -> None:
    config, paths = tiny_qwen2_config(**COMBINED["all of it"]), []
    for tp, pp in ((1, 1), (2, 2), (2, 4)):
        paths.append(write_tiny_checkpoint(tmp_path / f"{tp}{pp}" / "1", config, tp=tp, pp=pp))
    first, *others = (Checkpoint(path) for path in paths)
    biases = [name for name in first.specs if name.endswith("bias")]
    assert len(biases) == 4 and parameter_specs(first.config)[biases[0]].chunks == (32, 16, 16)
    for other in others:
        for name in biases:
            assert torch.equal(other.read(name), first.read(name))
    assert first.config.parameter_count == sum(first.read(name).numel() for name in first.specs)


def test_a_shard_takes_its_own_heads_biases(tmp_path) -> None:
    """The biases of tp shards, put together, are those of the whole, kv heads shared where there are too few."""
    from infini_eval.distributed.tensor_parallel import TensorParallel

    config = tiny_qwen2_config(attention_bias=True, num_key_value_heads=2, rope_interleaved=True)
    checkpoint = Checkpoint(write_tiny_checkpoint(tmp_path / "1", config))
    whole = load(checkpoint).llama.layers[1].qkv_bias.view(8, 8)  # 4 query heads, 2 of keys, 2 of values
    for rank in range(4):
        part = (
            NativeModel.load(checkpoint, ModelSettings(device="cpu"), tensor_parallel=TensorParallel(rank, 4))
            .llama.layers[1]
            .qkv_bias.view(3, 8)
        )
        assert torch.equal(part, whole[[rank, 4 + rank // 2, 6 + rank // 2]])


def test_the_recomputed_tail_of_a_prompt_is_that_of_the_whole(checkpoint, chunk) -> None:
    """What the last layer computes at the prompts' ends alone is what it computes everywhere."""
    model = load(checkpoint)
    rows = [np.asarray(drawn_ids(length)) for length in (17, 9, 2)]
    first = [answer[0] for answer in model.generate(rows, 1, stop_ids=(), batch_size=3)]
    expected = [int(model.logits(row[None])[0, -1].argmax()) for row in rows]
    assert first == expected


def test_a_folder_of_a_tiny_qwen2_says_what_it_is(tmp_path) -> None:
    path: Path = write_tiny_checkpoint(tmp_path / "1", tiny_qwen2_config(**COMBINED["all of it"]))
    config = Checkpoint(path).config
    assert (config.kind, config.family, config.rope_interleaved) == ("qwen2", "Qwen2", False)
    assert [config.has_rotary(layer) for layer in range(4)] == [True, False, True, False]
    assert [config.window_of(layer) for layer in range(4)] == [5, None, 5, None]


@pytest.mark.parametrize("lost", ["is_qwen2_config", "attention_bias"])
def test_biases_that_the_configuration_does_not_ask_for_are_refused(tmp_path, lost) -> None:
    """Without its flag a Qwen2 would be taken for a Llama, and computed without them."""
    path = write_tiny_checkpoint(tmp_path / "1", tiny_qwen2_config(attention_bias=True))
    document = yaml.safe_load((path / "config.yaml").read_text())
    del document["model"]["model_config"][lost]
    (path / "config.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(CheckpointError, match=f"has biases .*does not say {lost}: true"):
        Checkpoint(path)
