"""Writes trained weights as a Hugging Face checkpoint: config, generation config, weights and tokenizer."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from scripts.train_demo.saves import load_weights
from scripts.train_demo_llama.model import ROPE_THETA, PlainLlama, llama_config
from transformers import PreTrainedTokenizerFast

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def export(weights: Path, tokenizer: Path, out: Path) -> Path:
    """Fills `out` with the weights of a stage and a copy of the tokenizer; greedy decoding is its default."""
    loaded = PreTrainedTokenizerFast.from_pretrained(tokenizer)
    model = PlainLlama(llama_config(len(loaded), loaded.eos_token_id), seed=0)
    load_weights(model, weights)
    model.llama.save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)
    # transformers before 5 and readers of its files know the base frequency by this name only.
    config = json.loads((out / "config.json").read_text()) | {"rope_theta": ROPE_THETA}
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    for name in TOKENIZER_FILES:
        shutil.copyfile(tokenizer / name, out / name)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.train_demo_llama.export", description=__doc__)
    parser.add_argument("weights", type=Path, help="a safetensors file of weights from the working folder")
    parser.add_argument("--tokenizer", type=Path, default=Path("checkpoints/infini-demo/tokenizer"))
    parser.add_argument("--out", type=Path, default=Path("checkpoints/llama-demo"))
    args = parser.parse_args()
    print(export(args.weights, args.tokenizer, args.out))


if __name__ == "__main__":
    main()
