"""The other presets, and Infini-Attention's state and arithmetic as DESIGN states them."""

from __future__ import annotations

import pytest

from infini_eval.planning.architecture import from_model_config
from infini_eval.planning.hf_config import from_hf_config, preset_names, read_architecture
from infini_eval.planning.plan import flops_a_token
from infini_eval.planning.weights import state_bytes

PARAMETERS = {
    "infini-300m": 302_015_584,
    "llama-3.1-405b": 405_853_388_800,
    "llama-3.1-70b": 70_553_706_496,
    "llama-3.1-8b": 8_030_261_248,
    "llama-4-scout": 108_641_793_536,
}


def infini_8b():
    from infini_eval.config import ModelConfig

    sizes = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32}
    more = {"max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 5e5, "rope_interleaved": True}
    config = ModelConfig(
        kind="infini_llama", num_key_value_heads=8, vocab_size=128256, tie_word_embeddings=False, dtype="bfloat16",
        softmax_scale=1.0, segment_length=1024, gate_activation="hard_sigmoid", **sizes, **more,
    )  # fmt: skip
    return from_model_config(config, "8b")


def test_parameters():
    assert {name: read_architecture(name).total_parameters for name in preset_names()} == PARAMETERS


def test_a_full_cache_of_the_405b_model_at_128k():
    state = state_bytes(read_architecture("llama-3.1-405b"), 131_072, kv_dtype="bfloat16")
    assert state.cache == 2 * 126 * 8 * 128 * 131_072 * 2


@pytest.mark.parametrize(
    ("model", "memory_mb", "two_buffers_mb", "full_cache_gb"), [("300m", 6.34, 50, 51.5), ("8b", 16.9, 134, 137)]
)
def test_infini_state_is_the_same_at_any_length(
    model: str, memory_mb: float, two_buffers_mb: float, full_cache_gb: float
):
    architecture = read_architecture("infini-300m") if model == "300m" else infini_8b()
    at_1m = state_bytes(architecture, 2**20, kv_dtype="bfloat16")
    assert at_1m.memory / 1e6 == pytest.approx(memory_mb, rel=5e-3)
    assert at_1m.open_segment * 2 / 3 / 1e6 == pytest.approx(two_buffers_mb, rel=0.01)  # raw keys are the third
    assert at_1m.unbounded / 1e9 == pytest.approx(full_cache_gb, rel=5e-3)
    assert state_bytes(architecture, 2**10, kv_dtype="bfloat16").total == at_1m.total


def test_flops_a_token():
    small = flops_a_token(read_architecture("infini-300m"), 2**17)
    assert small.projections / 1e6 == pytest.approx(402.7, abs=0.05)
    assert small.attention / 1e6 == pytest.approx(25.2, abs=0.05)
    assert small.memory / 1e6 == pytest.approx(9.5, abs=0.05)
    assert flops_a_token(infini_8b(), 2**17).total / 1e9 == pytest.approx(14.28, abs=0.01)


def test_latent_attention_keeps_one_vector_a_token():
    config = {
        "model_type": "deepseek_v3", "hidden_size": 7168, "num_hidden_layers": 61, "num_attention_heads": 128,
        "num_key_value_heads": 128, "vocab_size": 129280, "intermediate_size": 18432, "moe_intermediate_size": 2048,
        "n_routed_experts": 256, "n_shared_experts": 1, "num_experts_per_tok": 8, "first_k_dense_replace": 3,
        "kv_lora_rank": 512, "q_lora_rank": 1536, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128,
    }  # fmt: skip
    architecture = from_hf_config(config, "mla")
    assert state_bytes(architecture, 1000, kv_dtype="bfloat16").cache == 61 * 1000 * 576 * 2
    assert state_bytes(architecture, 1000, kv_dtype="bfloat16", tp=8).cache == 61 * 1000 * 576 * 2
    assert architecture.total_parameters / 1e9 == pytest.approx(671, abs=0.5)
