"""Quick held-out accuracy of a weights file: lengths, depths, phases, key digits, and the memory switched off.

`python -m scripts.train_demo.evaluate WEIGHTS --tokenizer FOLDER` prints one line per group with its sample count.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from scripts.train_demo.data import Mix, Source
from scripts.train_demo.haystack import KINDS
from scripts.train_demo.model import InfiniLlama, ModelConfig
from scripts.train_demo.saves import load_weights
from scripts.train_demo.text import MAX_DIGITS
from scripts.train_demo.train import exact_matches
from transformers import PreTrainedTokenizerFast

LENGTH = 128
INSIDE = 28  # tokens that the prompt ends before the border, so that question and answer lie in one segment
DEPTHS = tuple(depth / 20 for depth in range(21))
BASE = Mix(LENGTH, (8,), local_only=0.0, depth_0=0.0, depth_100=0.0, intro=0.9)


class Evaluation:
    """Scores groups of held-out prompts with one model; every group has its own batches."""

    def __init__(self, weights: Path, tokenizer: Path, seed: int, device: str) -> None:
        loaded = PreTrainedTokenizerFast.from_pretrained(tokenizer)
        self.model = InfiniLlama(ModelConfig(vocab_size=len(loaded)), seed=0, product_type=torch.float32).to(device)
        load_weights(self.model, weights)
        self.source = Source(loaded, seed, held_out=True, size=300_000)
        self.device, self.step = device, 0

    def score(self, mix: Mix, count: int, ablate: bool = False, earlier: bool = False) -> tuple[int, int]:
        """(hits, samples) over `count` prompts; `earlier` keeps those whose needle is in an earlier segment."""
        hits = total = 0
        per_batch = max(1, min(count, 65_536 // (max(mix.segments) * mix.segment_length)))
        for _ in range(-(-count // per_batch)):
            self.step += 1
            batch = self.source.batch(self.step, mix, sequences=per_batch).to(self.device)
            match_B = exact_matches(self.model, batch, ablate)
            if earlier:
                match_B = match_B[batch.distance_B > 0]
            hits, total = hits + int(match_B.sum()), total + match_B.numel()
        return hits, total

    def show(self, name: str, mix: Mix, count: int, **options: bool) -> None:
        hits, total = self.score(mix, count, **options)
        print(f"{name:52s} {hits / max(total, 1):7.2%}  ({hits} of {total})", flush=True)

    def depths(self, name: str, mix: Mix, count: int) -> None:
        """The accuracy over all 21 depths, and every depth below 100 %."""
        cells = {depth: self.score(replace(mix, fixed_depth=depth), count) for depth in DEPTHS}
        hits, total = (sum(cell[i] for cell in cells.values()) for i in (0, 1))
        weak = ", ".join(f"{d:.0%}: {h}/{n}" for d, (h, n) in cells.items() if h < n) or "none"
        print(f"{name:52s} {hits / total:7.2%}  ({hits} of {total}; depths with misses: {weak})", flush=True)


def of_length(tokens: int, offset: int = 0) -> Mix:
    """Prompts of exactly tokens - offset ids; a multiple of the segment puts the answer on a border."""
    end = tokens - offset
    return replace(BASE, segments=((end + MAX_DIGITS) // LENGTH + 1,), fixed_end=end)


def any_phase(tokens: int) -> Mix:
    """The answer is anywhere in the last segment, wholly inside it."""
    return replace(BASE, segments=(tokens // LENGTH,))


def show_depths(run: Evaluation, n: int) -> None:
    """Two lengths, the answer inside a segment and on a border, at every depth."""
    for tokens in (512, 1024):
        run.depths(f"{tokens} - {INSIDE} tokens (inside a segment), 21 depths", of_length(tokens, INSIDE), n)
        run.depths(f"{tokens} tokens (on the border), 21 depths", of_length(tokens), n)
        run.show(f"{tokens}, any phase", any_phase(tokens), 20 * n)
    run.show("one segment, any phase", any_phase(LENGTH), 20 * n)


def show_details(run: Evaluation, n: int) -> None:
    """At 1,024 tokens: every phase near the border, the kinds of haystack, the numbers of digits, worked examples."""
    for offset in range(16):
        run.show(f"1024 - {offset} tokens", of_length(1024, offset), 10 * n)
    for kind in KINDS:
        run.show(f"1024, any phase, haystack: {kind}", replace(any_phase(1024), kind=kind), 10 * n)
    for digits in range(1, MAX_DIGITS + 1):
        run.show(f"1024, any phase, {digits} digits", replace(any_phase(1024), digits=digits), 10 * n)
        run.show(f"1024 tokens (on the border), {digits} digits", replace(of_length(1024), digits=digits), 10 * n)
    run.show("1024, any phase, with worked examples", replace(any_phase(1024), intro=1.0, shots=1.0), 10 * n)


def show_memory(run: Evaluation, n: int) -> None:
    """The memory's part: on and ablated, with the needle before and in the question's segment."""
    local = replace(of_length(1024, INSIDE), fixed_depth=1.0)
    for name, ablate in (("memory on", False), ("memory ablated", True)):
        run.show(f"1024, needle in an earlier segment, {name}", any_phase(1024), 20 * n, earlier=True, ablate=ablate)
        run.show(f"1024, needle in the question's segment, {name}", local, 10 * n, ablate=ablate)


def show_long(run: Evaluation, n: int, lengths: list[int]) -> None:
    """Lengths beyond training, with fewer samples the longer they are."""
    for tokens in lengths:
        count = max(4, 10 * n * 4096 // tokens)
        run.show(f"{tokens}, any phase", any_phase(tokens), count)
        run.show(f"{tokens} tokens (on the border)", of_length(tokens), count)
        run.show(f"{tokens}, any phase, haystack: filler", replace(any_phase(tokens), kind="filler"), count)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.train_demo.evaluate", description=__doc__)
    parser.add_argument("weights", type=Path, help="a stage's safetensors file from the working folder")
    parser.add_argument("--tokenizer", type=Path, default=Path("checkpoints/infini-demo/tokenizer"))
    parser.add_argument("--seed", type=int, default=77)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--count", type=int, default=10, help="samples per depth; other groups are multiples of it")
    parser.add_argument("--long", type=int, nargs="*", default=[4096, 16384], help="lengths beyond training")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    run = Evaluation(args.weights, args.tokenizer, args.seed, args.device)
    show_depths(run, args.count)
    show_details(run, args.count)
    show_memory(run, args.count)
    show_long(run, args.count, args.long)


if __name__ == "__main__":
    main()
