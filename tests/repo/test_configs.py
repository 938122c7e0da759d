"""configs/: the 300M configuration states the guide's model."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs" / "fineweb_local_300m_infini_4gpu_config.yaml"


@pytest.fixture(scope="module")
def config() -> dict:
    return yaml.safe_load(CONFIG.read_text())


def test_model(config: dict):
    model = config["model"]["model_config"]
    assert (model["hidden_size"], model["num_hidden_layers"], model["intermediate_size"]) == (1024, 12, 4096)
    assert (model["num_attention_heads"], model["num_key_value_heads"], model["vocab_size"]) == (8, 8, 49152)
    assert model["rms_norm_eps"] == 1e-5
    assert not model["tie_word_embeddings"]
    assert "rope_theta" not in model
    assert "rope_interleaved" not in model
    assert (config["model"]["dtype"], config["model"]["init_method"]["std"]) == ("bfloat16", 0.03125)


def test_infini_attention(config: dict):
    section = config["infini_attention"]
    assert (section["segment_length"], section["turn_on_memory"]) == (1024, True)
    assert (section["balance_act_type"], section["balance_init_type"]) == ("hard_sigmoid", "zeros")
    assert section["balance_factor_lr"] == 0.01


def test_training(config: dict):
    parallelism, tokens = config["parallelism"], config["tokens"]
    assert (parallelism["dp"], parallelism["tp"], parallelism["pp"]) == (4, 1, 1)
    assert (tokens["sequence_length"], tokens["train_steps"], tokens["micro_batch_size"]) == (8192, 30000, 1)
    assert config["tokenizer"]["tokenizer_name_or_path"] == "lvwerra/the-tokenizer-v1"
    assert config["checkpoints"]["checkpoints_path"] == "./checkpoints/fineweb_4gpu_300m_infini"
    assert config["general"]["seed"] == 42
