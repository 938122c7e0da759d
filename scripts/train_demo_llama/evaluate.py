"""Exact match of the exported checkpoint with transformers' own greedy generate, by length and depth.

`python -m scripts.train_demo_llama.evaluate` prints one line per length, and `--data FOLDER` one for a passkey set.
Held-out passkey prompts, keys of 4 and 5 digits in turns; a length includes ANSWER_TOKENS for the answer.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pyarrow.parquet as parquet
import torch
from scripts.train_demo.data import Source
from scripts.train_demo.evaluate import DEPTHS, of_length
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

ANSWER_TOKENS = 16
MEMORY_TOKENS = 16_384  # prompt tokens in one call of generate


def prompts_at(source: Source, length: int, depth: float, count: int, step: int) -> Iterator[tuple[list[int], str]]:
    """`count` prompts of exactly length - ANSWER_TOKENS ids with their keys, the needle at `depth`."""
    mix = replace(of_length(length, ANSWER_TOKENS), fixed_depth=depth)
    for index in range(count):
        batch = source.batch(step + index, replace(mix, digits=4 + index % 2), sequences=1)
        digits = batch.target_BK[0, : 4 + index % 2].tolist()
        yield batch.ids_BT[0, : length - ANSWER_TOKENS].tolist(), source.tokenizer.decode(digits)


def prompts_of_set(folder: Path, tokenizer: PreTrainedTokenizerFast) -> dict[float, list[tuple[list[int], str]]]:
    """The prompts of a passkey set by their depth, with their keys."""
    rows = parquet.read_table(folder, columns=["prompt", "answer", "depth_percent"]).to_pylist()
    groups: dict[float, list[tuple[list[int], str]]] = {}
    for row in rows:
        ids = tokenizer(row["prompt"])["input_ids"]
        groups.setdefault(row["depth_percent"] / 100, []).append((ids, str(row["answer"])))
    return groups


@torch.no_grad()
def hits(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, prompts: list[tuple[list[int], str]]) -> int:
    """How many prompts are answered with exactly the key and nothing else; prompts must be equally long."""
    right, at_once = 0, max(1, MEMORY_TOKENS // len(prompts[0][0]))
    for start in range(0, len(prompts), at_once):
        part = prompts[start : start + at_once]
        ids = torch.tensor([ids for ids, _ in part], device=model.device)
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=ANSWER_TOKENS, do_sample=False)
        replies = tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
        right += sum(reply.strip() == key for reply, (_, key) in zip(replies, part))
    return right


def show(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast,
         groups: dict[float, list[tuple[list[int], str]]]) -> None:  # fmt: skip
    """One line: the accuracy over all depths, and every depth below 100 %."""
    right: Counter[float] = Counter()
    for depth, prompts in groups.items():
        for length in sorted({len(ids) for ids, _ in prompts}):
            right[depth] += hits(model, tokenizer, [prompt for prompt in prompts if len(prompt[0]) == length])
    total = sum(len(prompts) for prompts in groups.values())
    cells = [f"{d:.0%}: {right[d]}/{len(p)}" for d, p in groups.items() if right[d] < len(p)]
    missed = ", ".join(cells) or "none"
    rate = right.total() / total
    print(f"{name:28s} {rate:7.2%}  ({right.total()} of {total}; depths with misses: {missed})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.train_demo_llama.evaluate", description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("checkpoints/llama-demo"))
    parser.add_argument("--lengths", type=int, nargs="*", default=[512, 1024, 2048])
    parser.add_argument("--count", type=int, default=10, help="samples at each of 21 depths")
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="folders of passkey sets (parquet)")
    parser.add_argument("--seed", type=int, default=77)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=args.dtype).to(args.device).eval()
    source = Source(tokenizer, args.seed, held_out=True, size=300_000) if args.lengths else None
    step = 0
    for length in args.lengths:
        groups = {}
        for depth in DEPTHS:
            groups[depth] = list(prompts_at(source, length, depth, args.count, step))
            step += args.count
        show(f"{length} tokens, 21 depths", model, tokenizer, groups)
    for folder in args.data:
        show(folder.name, model, tokenizer, prompts_of_set(folder, tokenizer))


if __name__ == "__main__":
    main()
