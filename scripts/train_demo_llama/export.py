"""Writes trained weights as a Hugging Face checkpoint: config, generation config, weights and tokenizer."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from scripts.train_demo.saves import load_weights
from scripts.train_demo_llama.model import ROPE_THETA, PlainLlama, llama_config
from transformers import PreTrainedTokenizerFast


def export(weights: Path, tokenizer: Path, out: Path) -> Path:
    """Fills `out` with the weights and the tokenizer; greedy decoding is its default."""
    loaded = PreTrainedTokenizerFast.from_pretrained(tokenizer)
    model = PlainLlama(llama_config(len(loaded), loaded.eos_token_id), seed=0)
    load_weights(model, weights)
    model.llama.save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)
    # transformers before 5 and readers of its files know the base frequency by this name only.
    update_json(out / "config.json", out / "config.json", {"rope_theta": ROPE_THETA})
    shutil.copyfile(tokenizer / "tokenizer.json", out / "tokenizer.json")
    # Without the list, transformers before 5 hands out token_type_ids too, and generate refuses them.
    update_json(out / "tokenizer_config.json", tokenizer / "tokenizer_config.json",
                {"model_input_names": ["input_ids", "attention_mask"]})  # fmt: skip
    return out


def update_json(path: Path, source: Path, changes: dict[str, Any]) -> None:
    """Writes the object in `source` with `changes` to `path`."""
    content = json.loads(source.read_text()) | changes
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.train_demo_llama.export", description=__doc__)
    parser.add_argument("weights", type=Path, help="a safetensors file of weights from the working folder")
    parser.add_argument("--tokenizer", type=Path, default=Path("checkpoints/infini-demo/tokenizer"))
    parser.add_argument("--out", type=Path, default=Path("checkpoints/llama-demo"))
    args = parser.parse_args()
    print(export(args.weights, args.tokenizer, args.out))


if __name__ == "__main__":
    main()
