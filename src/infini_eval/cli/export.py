"""Write results in another tool's form: csv, parquet, lm-eval's JSON, TensorBoard, MLflow, Weights & Biases.

  infini-eval export results/on results/ablated --format csv --output both.csv
  infini-eval export results --format tensorboard      # every run below, checkpoints as one curve
  WANDB_MODE=offline infini-eval export results/on --format wandb

The same at the end of a run: --report-to csv,tensorboard. Nothing in the run folders changes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from infini_eval.cli.flags import add_failed_flag, add_flag
from infini_eval.errors import EXIT_OK, InfiniEvalError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", nargs="+", metavar="DIR", type=Path, help="a run folder, or a folder of run folders")
    add_flag(
        parser,
        "--format",
        required=True,
        metavar="NAME",
        help="csv, parquet, lm-eval, tensorboard, mlflow, wandb, or another package's (an unknown name lists them all)",
    )
    add_flag(
        parser,
        "--output",
        type=Path,
        metavar="PATH",
        help="file or folder (default: results.csv, tensorboard/, … here; mlflow and wandb: as their environment says)",
    )
    add_failed_flag(parser)


def run(args: argparse.Namespace) -> int:
    """Export every run at or below the folders; those that cannot be read are named."""
    from infini_eval.library import export

    written = export(
        *args.folders,
        format=args.format,
        output=args.output,
        failed_as_wrong=args.failed_as_wrong,
        on_skip=_say_skipped,
    )
    print("\n".join(written))
    return EXIT_OK


def _say_skipped(folder: Path, error: InfiniEvalError) -> None:
    print(f"skipped {folder}: {error}", file=sys.stderr)
