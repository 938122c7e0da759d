"""Passkey questions of exact length for the tasks beside this file: to answer, to choose from, and as texts to measure.

python examples/harnesses/lm-eval/make_data.py --tokenizer checkpoints/infini-demo --context-length 4096
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

import infini_eval

CHOICES = 4
DEPTHS = (0, 20, 40, 60, 80)  # of these none lies in the question's own segment


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", default="checkpoints/infini-demo", help="a tokenizer, or a checkpoint with one")
    parser.add_argument("--context-length", type=int, default=4096, help="tokens of each prompt")
    parser.add_argument("--samples", type=int, default=40, help="how many questions")
    parser.add_argument("--output", type=Path, default=Path("results/harnesses/lm-eval"), help="a folder")
    args = parser.parse_args()
    each = -(-args.samples // len(DEPTHS))
    data = infini_eval.generate_dataset(
        args.output / "passkey",
        tokenizer=args.tokenizer,
        context_lengths=args.context_length,
        depths=DEPTHS,
        num_prompts=each,
        seed=7,
    )
    table = pq.read_table(data.path, columns=["prompt", "answer"])
    rows = [row | {"answer": str(row["answer"])} for row in table.to_pylist()[: args.samples]]
    write(args.output / "passkey.jsonl", [{"prompt": row["prompt"], "answer": row["answer"]} for row in rows])
    write(args.output / "choice.jsonl", [with_choices(row, random.Random(number)) for number, row in enumerate(rows)])
    write(args.output / "text.jsonl", [{"text": row["prompt"] + row["answer"]} for row in rows])


def with_choices(row: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """A question with its answer among other numbers of as many digits."""
    answer = row["answer"]
    choices = {answer}
    while len(choices) < CHOICES:
        choices.add(str(draw.randrange(10 ** (len(answer) - 1), 10 ** len(answer))))
    shuffled = sorted(choices)
    draw.shuffle(shuffled)
    return {"prompt": row["prompt"], "choices": shuffled, "label": shuffled.index(answer)}


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    print(f"{len(rows)} rows: {path}")


if __name__ == "__main__":
    main()
