"""Trains the plain demo Llama from scratch; run again after an interruption to go on."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # one short text at a time: threads only cost

import torch
from scripts.train_demo.data import Mix
from scripts.train_demo.tokenizer import load_or_train
from scripts.train_demo.train import Run, Stage
from scripts.train_demo_llama.export import export
from scripts.train_demo_llama.model import PlainLlama, llama_config

UNIT = 64  # sequences are multiples of it; the model knows no segments
# The shipped weights saw 16.8 M tokens of this (seed 1), up to 24 steps before its end. The budgets were set and one data
# error mended while that run went on, so a new run gives weights of this kind, not the same ones.
STAGES = (
    Stage(Mix(UNIT, (2,), intro=0.1, local_only=0.0), 6_000_000, 2e-3, 2e-3),
    Stage(Mix(UNIT, (2, 4, 6, 8), local_only=0.0), 4_000_000, 2e-3, 1.6e-3),
    Stage(Mix(UNIT, (1, 2, 4), local_only=0.0), 4_000_000, 1.8e-3, 1.2e-3),
    Stage(Mix(UNIT, (2, 4, 8, 16, 24, 32), shots=0.05, local_only=0.0), 2_900_000, 1.2e-3, 0.0),
)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scripts.train_demo_llama", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("checkpoints/llama-demo"), help="checkpoint folder to write")
    parser.add_argument(
        "--tokenizer", type=Path, default=Path("checkpoints/infini-demo/tokenizer"), help="folder; trained if empty"
    )
    parser.add_argument("--work-dir", type=Path, default=Path("results/train-demo-llama"), help="saves and log")
    parser.add_argument("--seed", type=int, default=1, help="of a new run; a resumed one keeps its own")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--batch-tokens", type=int, default=8192, help="tokens in a training step")
    parser.add_argument("--tokens-scale", type=float, default=1.0, help="share of the full budget, for a smoke test")
    parser.add_argument("--stop-below", type=float, default=0.7, help="least accuracy at the first stage's end")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    tokenizer = load_or_train(args.tokenizer)
    model = PlainLlama(llama_config(len(tokenizer), tokenizer.eos_token_id), args.seed)
    run = Run(model, STAGES, tokenizer, args.work_dir, args.seed, args.device, args.batch_tokens, args.tokens_scale)
    weights = run.train(args.stop_below)
    run.log(f"checkpoint written to {export(weights, args.tokenizer, args.out)}")


if __name__ == "__main__":
    main()
