"""Flags that long_context_test.py and model_comparison.py share: the document's constants, as flags and environment."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from infini_eval.cli.flags import add_flag, add_options
from infini_eval.config import PromptSettings
from infini_eval.options import positive_int


def add_niah_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of both scripts."""
    add_flag(
        parser, "--test-mode", action="store_true", help="load and tokenise without generating; report memory and time"
    )
    _add_prompt(parser)
    _add_local_model(parser)
    add_flag(
        parser,
        "--results-dir",
        type=Path,
        default=Path("comparison_results"),
        metavar="DIR",
        help="default: %(default)s",
    )


def _add_prompt(parser: argparse.ArgumentParser) -> None:
    env = os.environ
    add_flag(
        parser,
        "--needle",
        default=env.get("NEEDLE"),
        metavar="TEXT",
        help="the sentence to hide (default: the task's, or NEEDLE)",
    )
    add_flag(parser, "--question", default=env.get("QUESTION"), metavar="TEXT", help="default: the task's, or QUESTION")
    add_flag(
        parser,
        "--expected",
        default=env.get("EXPECTED"),
        metavar="TEXT",
        help="what the reply must contain (default: the needle, or the task's key)",
    )
    add_flag(
        parser,
        "--depth",
        type=float,
        default=50.0,
        metavar="PERCENT",
        help="where the needle stands (default: %(default)s)",
    )
    add_flag(
        parser,
        "--haystack",
        metavar="SOURCE",
        help="english, filler, python-docs, or a folder of text (default: the task's)",
    )
    add_flag(
        parser,
        "--tokenizer",
        metavar="DIR",
        help="counts the context's tokens (default: the local model's, else the shipped one)",
    )
    add_options(parser, PromptSettings)
    add_flag(parser, "--seed", type=int, default=42, help="default: %(default)s")
    add_flag(parser, "--max-new-tokens", type=positive_int, default=128, metavar="N", help="default: %(default)s")


def _add_local_model(parser: argparse.ArgumentParser) -> None:
    env = os.environ
    add_flag(
        parser,
        "--use-4bit-quantization",
        choices=("yes", "no"),
        default=_yes_no("USE_4BIT_QUANTIZATION", "no"),
        help="bitsandbytes while loading; it leaves Llama 4's experts as they are (default: %(default)s)",
    )
    add_flag(
        parser,
        "--enable-cpu-offload",
        choices=("yes", "no"),
        default=_yes_no("ENABLE_CPU_OFFLOAD", "no"),
        help="layers that do not fit go to host memory and offload_folder/ (default: %(default)s)",
    )
    add_flag(
        parser,
        "--max-gpu-memory",
        default=env.get("MAX_GPU_MEMORY"),
        metavar="SIZE",
        help="at most so much on each GPU: 75GiB (or MAX_GPU_MEMORY)",
    )
    add_flag(parser, "--dtype", choices=("float32", "bfloat16", "float16"), help="default: the model's")
    add_flag(parser, "--device", help="cpu or cuda (default: cuda when present)")
    add_flag(
        parser,
        "--tp",
        type=positive_int,
        metavar="N",
        help="shards of the local model, each in a process of its own (default: one process over all GPUs)",
    )
    add_flag(parser, "--no-plan", action="store_true", help="try also what the memory plan says cannot fit")


def _yes_no(name: str, default: str) -> str:
    """An environment variable as yes or no: True, 1, yes."""
    value = os.environ.get(name)
    return default if value is None else "yes" if value.strip().lower() in ("1", "true", "yes", "on") else "no"


def sizes(text: str) -> tuple[int, ...]:
    """ "100000" or "10_000,1000000" as characters."""
    try:
        found = tuple(int(part.replace("_", "")) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of characters (valid: 100000, or 10_000,100_000)")
    return found
