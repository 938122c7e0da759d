"""Trains the demo Infini-Attention checkpoint from scratch; run again after an interruption to go on."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # one short text at a time: threads only cost

import torch
from scripts.train_demo.export import CHECKED, LEAST, export, unsafe_batches
from scripts.train_demo.model import InfiniLlama, ModelConfig, copy_weights
from scripts.train_demo.tokenizer import load_or_train
from scripts.train_demo.train import STAGES, Run

from infini_eval.checkpoint.reader import Checkpoint


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scripts.train_demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("checkpoints/infini-demo"), help="checkpoint folder to write")
    parser.add_argument("--work-dir", type=Path, default=Path("results/train-demo"), help="saves and log of the run")
    parser.add_argument("--seed", type=int, default=1, help="of a new run; a resumed one keeps its own")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--batch-tokens", type=int, default=8192, help="tokens in a training step")
    parser.add_argument("--tokens-scale", type=float, default=1.0, help="share of the full budget, for a smoke test")
    parser.add_argument("--start-from", type=Path, help="checkpoint folder whose weights a new run starts from")
    parser.add_argument("--first-stage", type=int, default=1, help="the stage that a new run starts at")
    parser.add_argument("--stop-below", type=float, default=0.95, help="least accuracy at the first stage's end")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    tokenizer = load_or_train(args.out / "tokenizer")
    model = InfiniLlama(ModelConfig(vocab_size=len(tokenizer)), args.seed)
    if args.start_from:
        copy_weights(model, Checkpoint(args.start_from))
    run = Run(model, STAGES, tokenizer, args.work_dir, args.seed, args.device, args.batch_tokens,
              args.tokens_scale, args.first_stage)  # fmt: skip
    weights = run.train(args.stop_below)
    unsafe = unsafe_batches(weights, run.held_out, STAGES[-1].mix)
    if unsafe:
        raise SystemExit(f"{unsafe} of {CHECKED} held-out batches have a read that divides by less than {LEAST:.0e}: "
                         f"nothing exported; the weights are in {weights}")  # fmt: skip
    folder = export(weights, args.out, run.progress.step, run.progress.seed, tokenizer.eos_token_id)
    run.log(f"checkpoint written to {folder}")


if __name__ == "__main__":
    main()
