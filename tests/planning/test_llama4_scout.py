"""Llama 4 Scout's numbers: parameters, weights by quantization, KV cache, activations (shared/formats, section Llama 4)."""

from __future__ import annotations

import pytest

from infini_eval.planning.activations import StepShape, eager_softmax_bytes, expert_bytes, logit_bytes
from infini_eval.planning.architecture import Architecture
from infini_eval.planning.hf_config import read_architecture
from infini_eval.planning.weights import bytes_a_token, state_bytes, total_weight_bytes

GIB = 2**30


@pytest.fixture(scope="module")
def scout() -> Architecture:
    return read_architecture("llama-4-scout")


def test_parameters(scout: Architecture):
    assert scout.total_parameters == 108_641_793_536
    parts = {name: count / 1e9 for name, count in scout.parameters_by_part().items()}
    assert parts["experts"] == pytest.approx(96.637, abs=5e-4)
    assert parts["mlp"] == pytest.approx(6.040, abs=5e-4)  # the shared experts
    assert parts["attention"] == pytest.approx(3.020, abs=5e-4)
    assert parts["embedding"] == parts["head"] == pytest.approx(1.034, abs=5e-4)
    assert parts["vision"] == pytest.approx(0.851 + 0.021, abs=5e-4)  # tower, and projector into the text model


@pytest.mark.parametrize(
    ("quantization", "gigabytes"), [("none", 217.3), ("fp8", 108.6), ("int4", 54.3), ("nf4", 65.3), ("bnb-4bit", 204.3)]
)
def test_weights(scout: Architecture, quantization: str, gigabytes: float):
    assert total_weight_bytes(scout, "bfloat16", quantization) / 1e9 == pytest.approx(gigabytes, abs=0.05)


@pytest.mark.parametrize(
    ("tokens", "all_bf16", "bounded_bf16", "all_fp8", "bounded_fp8"),
    [
        (131_072, 25.8, 7.65, 12.9, 3.83),
        (10**6, 196.6, 50.4, 98.3, 25.2),
        (10**7, 1966, 492.7, 983, 246.4),
    ],
)
def test_kv_cache(scout, tokens: int, all_bf16: float, bounded_bf16: float, all_fp8: float, bounded_fp8: float):
    for dtype, everything, bounded in (("bfloat16", all_bf16, bounded_bf16), ("fp8", all_fp8, bounded_fp8)):
        state = state_bytes(scout, tokens, kv_dtype=dtype)
        assert state.unbounded / 1e9 == pytest.approx(everything, rel=2e-3)
        assert state.cache / 1e9 == pytest.approx(bounded, rel=2e-3)


def test_bytes_a_token(scout: Architecture):
    assert bytes_a_token(scout, scout.layers[0], "bfloat16") == 4096
    chunked = [layer for layer in scout.layers if layer.attention == "chunked"]
    assert len(chunked) == 36
    assert {layer.window for layer in chunked} == {8192}
    assert [index for index, layer in enumerate(scout.layers) if layer.attention == "full"] == list(range(3, 48, 4))
    more = (
        state_bytes(scout, 10**6 + 1, kv_dtype="bfloat16").cache - state_bytes(scout, 10**6, kv_dtype="bfloat16").cache
    )
    assert more == 49_152


def test_the_analysis_documents_out_of_memory_was_one_eager_softmax(scout: Architecture):
    assert eager_softmax_bytes(scout.num_heads, 8097, 8097) / GIB == pytest.approx(9.77, abs=0.005)


def test_every_token_passes_all_experts(scout: Architecture):
    assert expert_bytes(scout, StepShape(tokens=8192, context=8192)) / GIB == pytest.approx(11.75, abs=0.005)


def test_logits(scout: Architecture):
    assert logit_bytes(scout, positions=10**6) / GIB == pytest.approx(753, abs=0.5)
    assert logit_bytes(scout) / 2**20 == pytest.approx(0.77, abs=0.005)
