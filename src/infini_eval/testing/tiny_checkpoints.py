"""Small random checkpoints in nanotron's layout, for tests and demonstrations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from infini_eval.checkpoint.config_yaml import read_config
from infini_eval.checkpoint.layout import parameter_specs
from infini_eval.checkpoint.writer import write_checkpoint


def tiny_config(*, infini: bool = True, **changes: Any) -> dict[str, Any]:
    """The content of a config.yaml; `changes` replace keys of model_config, or of infini_attention where they belong."""
    model_config = {
        "is_llama_config": True,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "vocab_size": 96,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "rope_interleaved": True,
        "tie_word_embeddings": False,
        "hidden_act": "silu",
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    section = {"segment_length": 8, "turn_on_memory": True, "balance_act_type": "orig_sigmoid"}
    for key, value in changes.items():
        (section if key in section or key == "memory_query" else model_config)[key] = value
    config: dict[str, Any] = {
        "general": {"step": 1, "project": "tiny", "run": "tiny"},
        "model": {"dtype": "float32", "model_config": model_config},
        "parallelism": {"dp": 1, "tp": 1, "pp": 1},
        "tokenizer": {"tokenizer_name_or_path": None},
    }
    return config | ({"infini_attention": section} if infini else {})


def write_tiny_checkpoint(
    folder: Path, config: dict[str, Any] | None = None, *, seed: int = 0, tp: int = 1, pp: int = 1
) -> Path:
    """Write random weights (large enough that answers differ) for `config` to `folder`; the same seed, the same weights."""
    config = tiny_config() if config is None else config
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(_dump(config))
    model_config, _ = read_config(folder)
    generator = torch.Generator().manual_seed(seed)
    parameters = {}
    for name, spec in parameter_specs(model_config).items():
        noise = torch.randn(spec.shape, generator=generator)
        parameters[name] = 1 + 0.1 * noise if "norm" in name else noise * (0.5 if "balance" in name else 0.15)
    return write_checkpoint(folder, parameters, config, tp=tp, pp=pp)


def _dump(config: dict[str, Any]) -> str:
    import yaml

    return str(yaml.safe_dump(config))
