"""Writes trained weights as a nanotron 1.2 checkpoint with one file per parameter, readable by the toolkit."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from scripts.train_demo.data import Mix, Source
from scripts.train_demo.model import InfiniLlama, ModelConfig
from scripts.train_demo.saves import load_weights
from scripts.train_demo.train import HELD_OUT_STEP

from infini_eval.checkpoint.writer import write_checkpoint

SEGMENT_LENGTH = 128
TRAINED_LENGTH = 1024
LEAST = 1e-6  # denominator of a read; elu + 1 has steps of 6e-8 in float32
CHECKED = 96  # batches of 8 prompts


def nanotron_config(model: ModelConfig, step: int, seed: int, end_token: int) -> dict[str, Any]:
    """The content of config.yaml; the sections that only a training run of nanotron needs are left out."""
    return {
        "general": {"project": "infini-demo", "run": "passkey-retriever", "seed": seed, "step": step},
        "infini_attention": {
            "balance_act_type": "hard_sigmoid",
            "balance_init_type": "zeros",
            "segment_length": SEGMENT_LENGTH,
            "turn_on_memory": True,
        },
        "model": {
            "dtype": "float32",
            "model_config": {
                "bos_token_id": end_token,
                "eos_token_id": end_token,
                "hidden_act": "silu",
                "hidden_size": model.hidden_size,
                "initializer_range": 0.02,
                "intermediate_size": model.intermediate_size,
                "is_llama_config": True,
                "max_position_embeddings": TRAINED_LENGTH,
                "num_attention_heads": model.num_attention_heads,
                "num_hidden_layers": model.num_hidden_layers,
                "num_key_value_heads": None,
                "pad_token_id": end_token,
                "pretraining_tp": 1,
                "rms_norm_eps": model.rms_norm_eps,
                "rope_interleaved": True,
                "rope_scaling": None,
                "rope_theta": model.rope_theta,
                "tie_word_embeddings": True,
                "use_cache": True,
                "vocab_size": model.vocab_size,
            },
        },
        "parallelism": {"dp": 1, "pp": 1, "tp": 1, "tp_mode": "ALL_REDUCE"},
        "tokenizer": {"tokenizer_name_or_path": "../tokenizer"},
        "tokens": {"sequence_length": TRAINED_LENGTH},
    }


@torch.no_grad()
def unsafe_batches(weights: Path, source: Source, mix: Mix) -> int:
    """Of CHECKED batches of held-out prompts, those with a memory read whose denominator is less than LEAST."""
    tensors = load_file(weights)
    model = InfiniLlama(model_config(tensors), seed=0, product_type=torch.float32, floor=LEAST)
    load_weights(model, weights)
    mix = replace(mix, local_only=0.0, factor_max=1.0)
    batches = (source.batch(HELD_OUT_STEP + step, mix, sequences=8) for step in range(CHECKED))
    return sum(bool(model.training_logits(batch)[1] != 0) for batch in batches)  # NaN is counted too


def model_config(tensors: dict[str, torch.Tensor]) -> ModelConfig:
    """The demo's size with the vocabulary of these weights."""
    return ModelConfig(vocab_size=tensors["model.token_position_embeddings.pp_block.token_embedding.weight"].shape[0])


def export(weights: Path, out: Path, step: int, seed: int, end_token: int = 0) -> Path:
    """Writes `<out>/<step>/` and `<out>/latest.txt`; the tokenizer lies beside them already."""
    tensors = load_file(weights)
    config = nanotron_config(model_config(tensors), step, seed, end_token)
    return write_checkpoint(out / str(step), tensors, config)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.train_demo.export", description=__doc__)
    parser.add_argument("weights", type=Path, help="a stage's safetensors file from the working folder")
    parser.add_argument("--out", type=Path, default=Path("checkpoints/infini-demo"))
    parser.add_argument("--step", type=int, required=True, help="the training step, the folder's name")
    parser.add_argument("--seed", type=int, required=True, help="of the run, to be written into config.yaml")
    args = parser.parse_args()
    print(export(args.weights, args.out, args.step, args.seed))


if __name__ == "__main__":
    main()
