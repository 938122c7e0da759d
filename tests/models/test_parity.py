"""Parity with the reference: naive and streaming against the fixtures, and streaming against naive where they end."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.config import ModelSettings
from infini_eval.engine.native_model import NativeModel
from infini_eval.models.naive import naive_logits
from infini_eval.testing.tiny_models import tiny_config, write_tiny_checkpoint
from support.shared_material import shared_path

VARIANTS = [
    *(f"nanotron/{name}" for name in ("mha", "gqa_neox", "tied", "act_tanh_abs", "act_hard_sigmoid")),
    *(f"nanotron/{name}" for name in ("act_orig_sigmoid", "act_orig_tanh", "memory_off", "bf16_disk")),
    *(f"nanotron-main/{name}" for name in ("llama_gqa", "llama_mha_tied", "llama_mup")),
    *(f"nanotron-main-qwen2/qwen2_{name}" for name in ("gqa", "gqa_bias", "norope", "swa", "rope_interp")),
]
QUERIES = {"rotary": ("logits", "generated"), "plain": ("logits_nope_query", "generated_nope_query")}


def native(path, **settings) -> NativeModel:
    return NativeModel.load(Checkpoint(path), ModelSettings(dtype="float32", device="cpu", **settings))


def all_weights(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    return {name: checkpoint.read(name) for name in checkpoint.specs}


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_naive_equals_the_reference(variant: str, query: str) -> None:
    folder = shared_path("fixtures", *variant.split("/"))
    reference = load_file(folder / "logits.safetensors")
    expected = reference.get(QUERIES[query][0], reference["logits"])
    checkpoint = Checkpoint(next(folder.glob("tp*")))
    got = naive_logits(
        all_weights(checkpoint),
        checkpoint.config,
        reference["input_ids"],
        memory=checkpoint.config.memory,
        memory_query=query,
    )
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("chunk_segments", [1, 2, 7])
@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_streaming_equals_the_reference(variant: str, query: str, chunk_segments: int) -> None:
    folder = shared_path("fixtures", *variant.split("/"))
    reference = load_file(folder / "logits.safetensors")
    generation = json.loads((folder / "generation.json").read_text())
    logits_key, tokens_key = QUERIES[query]
    for topology in sorted(folder.glob("tp*")):
        model = native(topology, memory_query=query, chunk_segments=chunk_segments)
        got = model.logits(reference["input_ids"])
        torch.testing.assert_close(got, reference.get(logits_key, reference["logits"]), atol=1e-4, rtol=0)
        answers = model.generate(generation["prompt_ids"], generation["new_tokens"], stop_ids=())
        assert answers == generation.get(tokens_key, generation["generated"])


@pytest.fixture(scope="module", params=["infini", "infini_gqa_neox", "llama"])
def tiny(request, tmp_path_factory) -> Checkpoint:
    changes = {"infini": {}, "infini_gqa_neox": {"num_key_value_heads": 2, "rope_interleaved": False}, "llama": {}}
    config = tiny_config(infini=request.param != "llama", **changes[request.param])
    return Checkpoint(write_tiny_checkpoint(tmp_path_factory.mktemp(request.param) / "1", config))


@pytest.mark.parametrize("tokens", [1, 7, 8, 9, 29, 63, 1000])
@pytest.mark.parametrize("chunk_segments", [1, 2, 7])
def test_streaming_equals_naive_at_odd_lengths(tiny: Checkpoint, tokens: int, chunk_segments: int) -> None:
    ids = torch.randint(96, (2, tokens), generator=torch.Generator().manual_seed(tokens))
    model = NativeModel.load(tiny, ModelSettings(device="cpu", chunk_segments=chunk_segments))
    settings = model.resolved.attention
    expected = naive_logits(
        all_weights(tiny), tiny.config, ids, memory=settings.memory, memory_query=settings.memory_query
    )
    torch.testing.assert_close(model.logits(ids), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("memory", ["on", "off", "ablate"])
@pytest.mark.parametrize("query", ["rotary", "plain"])
def test_every_memory_setting_equals_naive(tmp_path, memory: str, query: str) -> None:
    checkpoint = Checkpoint(write_tiny_checkpoint(tmp_path / "1"))
    ids = torch.arange(2 * 37).view(2, 37) % 96
    expected = naive_logits(all_weights(checkpoint), checkpoint.config, ids, memory=memory, memory_query=query)
    got = native(tmp_path / "1", memory=memory, memory_query=query).logits(ids)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)


def greedy_by_recompute(checkpoint: Checkpoint, prompt: np.ndarray, new_tokens: int, settings) -> list[int]:
    """What the tools in use do: the whole context again for every token."""
    weights, ids = all_weights(checkpoint), torch.from_numpy(prompt)[None]
    for _ in range(new_tokens):
        logits = naive_logits(
            weights, checkpoint.config, ids, memory=settings.memory, memory_query=settings.memory_query
        )
        ids = torch.cat([ids, logits[:, -1:].argmax(-1)], dim=1)
    return ids[0, len(prompt) :].tolist()


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_batches_of_unequal_lengths_decode_across_borders_as_alone(tiny: Checkpoint, batch_size: int) -> None:
    rng = np.random.default_rng(0)
    prompts = [rng.integers(0, 96, size) for size in (1, 7, 8, 9, 15, 16, 17, 21, 23, 24, 40)]
    model = NativeModel.load(tiny, ModelSettings(device="cpu", chunk_segments=2))
    answers = model.generate(prompts, 19, stop_ids=(), batch_size=batch_size)
    for prompt, answer in zip(prompts, answers, strict=True):
        assert answer == greedy_by_recompute(tiny, prompt, 19, model.resolved.attention)


def test_memory_dtype_model_keeps_the_memory_in_bfloat16(tmp_path) -> None:
    path = write_tiny_checkpoint(tmp_path / "1")
    model = NativeModel.load(Checkpoint(path), ModelSettings(dtype="bfloat16", device="cpu", memory_dtype="model"))
    assert model.llama.new_state(1, 8).layers[0].memory.dtype == torch.bfloat16
    assert torch.isfinite(model.logits(torch.arange(40)[None])).all()
