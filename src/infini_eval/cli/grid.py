"""Make needle trials at the lengths and depths asked for, and evaluate a nanotron checkpoint on them, in one model load.

  torchrun --nproc_per_node=4 examples/infinite-context-length/run_evals.py --ckpt-path CKPT \\
      --context_length 16384 --depth_percent 75 --num_shots 20 --num_digits 7 --tp 4
  infini-eval grid --ckpt-path CKPT --context_length 4k 16k --depth_percent 0 50 100 --num_shots 5 --num_digits 5

--num_shots is the number of trials of each length and depth; several lengths and depths make a grid.
The same command continues an interrupted run.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

from infini_eval.cli import flags
from infini_eval.cli.passkey import evaluate_and_report
from infini_eval.cli.suite import counted
from infini_eval.data.config import GenerateConfig
from infini_eval.errors import EXIT_OK
from infini_eval.options import depth_percent, positive_int, token_count

DEFAULT_ROOT = Path("results") / "run_evals"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    flags.add_checkpoint_flag(parser)
    trials = parser.add_argument_group("trials")
    flags.add_flag(
        trials,
        "--context_length",
        type=token_count,
        nargs="+",
        required=True,
        metavar="N",
        help="tokens of a prompt: 4096, 128k, 1m; several",
    )
    flags.add_flag(
        trials,
        "--depth_percent",
        type=depth_percent,
        nargs="+",
        required=True,
        metavar="D",
        help="depth of the needle in percent of the haystack; several",
    )
    flags.add_flag(
        trials,
        "--num_shots",
        type=positive_int,
        required=True,
        metavar="N",
        help="trials of each length and depth",
    )
    flags.add_flag(
        trials,
        "--num_digits",
        type=positive_int,
        required=True,
        metavar="N",
        help="digits of the needle's number",
    )
    flags.add_flag(
        trials,
        "--haystack_dir",
        metavar="H",
        help="folder of texts, or english, filler, python-docs (default: english)",
    )
    flags.add_flag(
        trials, "--seed", type=int, default=42, help="makes the trials, and seeds sampling (default: %(default)s)"
    )
    run_group = parser.add_argument_group("run")
    flags.add_run_flags(run_group)
    flags.add_topology_flags(parser.add_argument_group("processes"))
    flags.add_model_flags(parser.add_argument_group("model"))
    flags.add_sampling_flags(parser.add_argument_group("sampling"))
    parser.set_defaults(max_new_tokens=30)
    next(action for action in run_group._group_actions if action.dest == "save_path").required = False


def run(args: argparse.Namespace) -> int:
    wanted, tokenizer = trials_config(args), args.tokenizer or args.ckpt_path
    folder = Path(args.save_path or DEFAULT_ROOT / _name(args))
    data = folder / f"data-{_digest(wanted, tokenizer)}"
    args.save_path, args.eval_dataset_path = str(folder), str(data)
    args.context_length = args.depths = args.num_samples = args.num_shots = (
        None  # the data hold just what was asked for
    )
    args.num_digits, args.strict_data = None, False

    def make_data() -> None:
        from infini_eval.data.dataset import generate_dataset

        if not any(data.glob("*.parquet")):
            with counted("making the trials", quiet=args.quiet) as count:
                generate_dataset(wanted, data, tokenizer, on_row=count.set)

    evaluate_and_report(flags.eval_config(args, args.ckpt_path), args.timeout, make_data)
    return EXIT_OK


def trials_config(args: argparse.Namespace) -> GenerateConfig:
    """What the trials are: --num_shots prompts of each length and depth."""
    return GenerateConfig(
        context_lengths=tuple(args.context_length),
        depths=tuple(args.depth_percent),
        num_prompts=args.num_shots,
        num_digits=(args.num_digits,),
        seed=args.seed,
        haystack=args.haystack_dir,
    )


def _name(args: argparse.Namespace) -> str:
    """A run folder's name that says what is in it, alike on every rank."""
    lengths = "-".join(map(str, args.context_length))
    depths = "-".join(f"{depth:g}" for depth in args.depth_percent)
    path = Path(args.ckpt_path)
    return f"{path.parent.name}_{path.name}_{lengths}_depth{depths}_{args.num_shots}x{args.num_digits}digits".strip(
        "_."
    )


def _digest(config: GenerateConfig, tokenizer: str) -> str:
    """Names the trials, so that a folder never holds others than those that are asked for."""
    return hashlib.sha256(f"{tokenizer}\0{sorted(vars(config).items())}".encode()).hexdigest()[:8]
