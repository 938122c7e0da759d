"""Continues the training of a checkpoint that `infini-eval import` made of a demo Llama, until it recalls across segments.

  infini-eval import checkpoints/llama-demo --segment-length 128 --output results/imported
  python -m scripts.train_imported results/imported --out results/restored
  infini-eval export results/restored --format hf --output results/restored-hf

Run again after an interruption to go on. The data, the loss and the optimizer are those of scripts/train_demo.
"""

from __future__ import annotations

import argparse
import os
import shutil
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # one short text at a time: threads only cost

import torch
import yaml
from safetensors.torch import load_file
from scripts.train_demo.data import Mix
from scripts.train_demo.model import InfiniLlama, ModelConfig, copy_weights
from scripts.train_demo.train import HELD_OUT_STEP, Run, Stage
from transformers import PreTrainedTokenizerFast

from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.checkpoint.writer import write_checkpoint

# The source finds keys already, in whatever it attends to: what has to be learnt is to write and to read the memory.
STAGES = (
    Stage(Mix(64, (2,), intro=0.1), 6_000_000, 1.5e-3, 1.5e-3),
    Stage(Mix(128, (2, 3, 4), straddle=0.15, shots=0.05, factor_max=64), 4_000_000, 1.2e-3, 1e-3),
    Stage(Mix(128, (2, 3, 4, 8), straddle=0.5, shots=0.08, factor_max=4096), 8_000_000, 1e-3, 0.0),
)
CHECKED = 24  # batches of 8 held-out prompts, with and without the memory


def model_of(checkpoint: Checkpoint, seed: int, product_type: torch.dtype = torch.bfloat16) -> InfiniLlama:
    """The training model with a checkpoint's shape and weights."""
    config = checkpoint.config
    if config.num_key_value_heads != config.num_attention_heads or not config.tie_word_embeddings:
        raise SystemExit(
            "only models with as many kv heads as heads and tied embeddings, as llama-demo is, are trained here"
        )
    if config.gate_activation != "hard_sigmoid":
        raise SystemExit(f"the gates are {config.gate_activation}; import with --gate-activation hard_sigmoid")
    shape = ModelConfig(
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        vocab_size=config.vocab_size,
        rope_theta=config.rope_theta,
        rms_norm_eps=config.rms_norm_eps,
    )
    model = InfiniLlama(shape, seed, product_type)
    copy_weights(model, checkpoint)
    return model


def recall(run: Run, mix: Mix, ablate: bool) -> float:
    """Exact matches of held-out keys that lie in an earlier segment than the question."""
    from scripts.train_demo.train import exact_matches

    mix, hits, total = replace(mix, local_only=0.0, factor_max=1.0), 0, 0
    for step in range(CHECKED):
        batch = run.held_out.batch(HELD_OUT_STEP + step, mix, sequences=8).to(run.device)
        earlier_B = batch.distance_B > 0
        hits += int(exact_matches(run.model, batch, ablate)[earlier_B].sum())
        total += int(earlier_B.sum())
    return hits / max(1, total)


def write(source: Checkpoint, weights: Path, out: Path, step: int) -> Path:
    """Write the trained weights as the imported checkpoint's next step, its tokenizer beside them."""
    config = yaml.safe_load((source.folder / "config.yaml").read_text())
    config["general"] |= {"step": step}
    shutil.copytree(source.folder.parent / "tokenizer", out / "tokenizer", dirs_exist_ok=True)
    return write_checkpoint(out / str(step), load_file(weights), config)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.train_imported", description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="what infini-eval import wrote")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint folder to write")
    parser.add_argument(
        "--work-dir", type=Path, default=Path("results/train-imported"), help="saves and log of the run"
    )
    parser.add_argument("--seed", type=int, default=1, help="of a new run; a resumed one keeps its own")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--batch-tokens", type=int, default=8192, help="tokens in a training step")
    parser.add_argument("--tokens-scale", type=float, default=1.0, help="share of the full budget, for a smoke test")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    source = Checkpoint(args.checkpoint)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(source.folder.parent / "tokenizer")
    model = model_of(source, args.seed)
    run = Run(model, STAGES, tokenizer, args.work_dir, args.seed, args.device, args.batch_tokens, args.tokens_scale)
    if not run.progress.step:
        run.log(f"before: recall across segments {recall(run, STAGES[-1].mix, ablate=False):.1%}")
    weights = run.train(stop_below=0.0)
    found = [f"{recall(run, STAGES[-1].mix, ablate):.1%}" for ablate in (False, True)]
    run.log(f"after: recall across segments {found[0]}, with the memory ablated {found[1]}")
    run.log(f"checkpoint written to {write(source, weights, args.out, run.progress.step)}")


if __name__ == "__main__":
    main()
