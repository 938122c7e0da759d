"""One model, one needle, a very long context: the document's constants as flags, or as variables of the environment.

python long_context_test.py --target-char-count 10_000 --model-id DIR_OR_HUB_ID
TARGET_CHAR_COUNT=40_000_000 MODEL_ID=... python long_context_test.py --test-mode
"""

from __future__ import annotations

import argparse
import os

from infini_eval.cli import model_comparison
from infini_eval.cli.flags import add_flag
from infini_eval.cli.niah_flags import add_niah_flags, sizes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    size = sizes(os.environ.get("TARGET_CHAR_COUNT", "10_000"))
    add_flag(
        parser,
        "--target-char-count",
        type=sizes,
        default=size,
        metavar="N",
        help="characters, about 4 a token; several, separated by commas, make a sweep (default: 10000, or TARGET_CHAR_COUNT)",
    )
    add_flag(
        parser,
        "--model-id",
        default=os.environ.get("MODEL_ID", model_comparison.SCOUT),
        metavar="MODEL",
        help="folder or hub id (default: %(default)s, or MODEL_ID)",
    )
    add_flag(parser, "--backend", default="transformers", metavar="NAME", help="who answers (default: %(default)s)")
    add_niah_flags(parser)


def run(args: argparse.Namespace) -> int:
    contender = model_comparison.named_contender(args, f"{args.backend}:{args.model_id}")
    return model_comparison.compare_and_report(args, [contender], args.target_char_count)
