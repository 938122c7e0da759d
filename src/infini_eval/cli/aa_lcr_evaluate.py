"""Judge the answers that generate.py wrote and print the accuracy (examples/aa-lcr/evaluate.py).

  python evaluate.py --input-json generations.json --backend openai --base-url http://127.0.0.1:8000/v1 --model JUDGE

What it does is `infini-eval judge`; without --backend and --model the judge is the document's own, which is a weak one.
"""

from __future__ import annotations

import argparse
import sys

from infini_eval.cli import judge
from infini_eval.cli.aa_lcr_generate import MODEL

WEAK = f"note: {MODEL} is a weak judge; protocol v1.0 is meant for Qwen3-235B-A22B-2507 (--backend, --model)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    judge.add_arguments(parser)
    judge.preset(parser, hidden=False, backend="vllm", model_path=MODEL)


def run(args: argparse.Namespace) -> int:
    if args.model_path == MODEL:
        print(WEAK, file=sys.stderr)
    return judge.run(args)
