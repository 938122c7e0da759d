"""Parameters read from config.json equal what transformers builds from it; windows are where its caches have them."""

from __future__ import annotations

from typing import Any

import pytest

from infini_eval.errors import ConfigError
from infini_eval.planning.hf_config import from_hf_config

SMALL: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 128,
}
MOE = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
LATENT = {"kv_lora_rank": 16, "q_lora_rank": 24, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 16}
MODELS: dict[str, dict[str, Any]] = {
    "llama": {"attention_bias": True},
    "mistral": {"sliding_window": 8},
    "qwen2": {},
    "qwen3": {"tie_word_embeddings": True},
    "gemma2": {"sliding_window": 8},
    "gemma3_text": {"sliding_window": 8, "num_hidden_layers": 6},
    "phi3": {"pad_token_id": 0},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {"num_experts": 4, "decoder_sparse_step": 2, **MOE},
    "qwen2_moe": {"num_experts": 4, "shared_expert_intermediate_size": 48, **MOE},
    "deepseek_v3": {
        "n_routed_experts": 4,
        "n_shared_experts": 1,
        "first_k_dense_replace": 1,
        "n_group": 2,
        "topk_group": 1,
        **MOE,
        **LATENT,
    },
    "infini_llama": {"segment_length": 8},
    "llama4_text": {
        "num_local_experts": 4,
        "num_experts_per_tok": 1,
        "intermediate_size_mlp": 80,
        "interleave_moe_layer_step": 2,
        "attention_chunk_size": 8,
        "use_qk_norm": False,
    },
}


def built_by_transformers(family: str, changes: dict[str, Any]):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    import infini_eval.hf  # noqa: F401  # transformers then knows infini_llama

    try:
        config = transformers.AutoConfig.for_model(family, **{**SMALL, **changes})
    except ValueError:
        pytest.skip(f"this transformers has no {family}")
    with torch.device("meta"):
        return config, transformers.AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize("family", MODELS)
def test_parameters_are_those_that_transformers_builds(family: str):
    config, model = built_by_transformers(family, MODELS[family])
    document = config.to_dict()
    found = from_hf_config(document, family)
    assert found.total_parameters == sum(parameter.numel() for parameter in model.parameters()) + buffers_of(
        family, model
    )


def buffers_of(family: str, model: Any) -> int:
    """deepseek_v3 keeps a correction of its router's scores as a buffer, which is saved with the weights."""
    if family != "deepseek_v3":
        return 0
    return sum(buffer.numel() for name, buffer in model.named_buffers() if name.endswith("e_score_correction_bias"))


@pytest.mark.parametrize(
    ("config", "kinds"),
    [
        ({"model_type": "mistral", "sliding_window": 8}, "SSSS"),
        ({"model_type": "mistral", "sliding_window": None}, "FFFF"),
        ({"model_type": "qwen2", "sliding_window": 8, "use_sliding_window": False}, "FFFF"),
        ({"model_type": "gemma2", "sliding_window": 8}, "SFSF"),
        ({"model_type": "llama4_text", "attention_chunk_size": 8, "intermediate_size_mlp": 96}, "CCCF"),
        (
            {
                "model_type": "llama4_text",
                "attention_chunk_size": 8,
                "intermediate_size_mlp": 96,
                "no_rope_layers": [1, 0, 1, 0],
            },
            "CFCF",
        ),
        ({"layer_types": ["full_attention", "sliding_attention"] * 2, "sliding_window": 8}, "FSFS"),
    ],
)
def test_windows(config: dict[str, Any], kinds: str):
    layers = from_hf_config({**SMALL, **config}, "x").layers
    assert "".join(layer.attention[0].upper() for layer in layers) == kinds
    assert {layer.window for layer in layers if layer.attention != "full"} <= {8}


def test_text_part_of_a_multimodal_model_is_found():
    nested = {"model_type": "gemma3", "text_config": {**SMALL, "model_type": "gemma3_text"}, "torch_dtype": "bfloat16"}
    assert len(from_hf_config(nested, "x").layers) == 4


@pytest.mark.parametrize("missing", ["hidden_size", "num_attention_heads", "vocab_size", "intermediate_size"])
def test_what_is_missing_is_named(missing: str):
    config = {key: value for key, value in SMALL.items() if key != missing}
    with pytest.raises(ConfigError, match=missing):
        from_hf_config(config, "x")


def test_unknown_families_are_said_to_be_an_estimate():
    assert "Llama-like" in from_hf_config({**SMALL, "model_type": "brand_new"}, "x").notes[0]


def test_an_exported_checkpoint_is_planned_as_the_checkpoint_is() -> None:
    from infini_eval.planning.weights import state_bytes

    document = SMALL | {"model_type": "infini_llama", "segment_length": 8, "max_position_embeddings": 32}
    short, long = (
        state_bytes(from_hf_config(document, "exported"), tokens, kv_dtype="float32") for tokens in (9, 9000)
    )
    assert short.total == long.total == 4 * 4 * (3 * 8 * 32 + 32 * 17) and long.cache == 0
    assert from_hf_config(document, "exported").max_positions is None
    off = from_hf_config(document | {"memory": "off"}, "exported")
    assert state_bytes(off, 9000, kv_dtype="float32").memory == 0
    for wrong in ({}, {"segment_length": "8"}, {"segment_length": 0}):
        with pytest.raises(ConfigError, match="exported: segment_length is"):
            from_hf_config(SMALL | {"model_type": "infini_llama"} | wrong, "exported")
