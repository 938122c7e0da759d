"""Write results, a checkpoint or a data set in another tool's form.

  infini-eval export results/on results/ablated --format csv --output both.csv
  infini-eval export results --format tensorboard      # every run below, checkpoints as one curve
  WANDB_MODE=offline infini-eval export results/on --format wandb
  infini-eval export CKPT --format hf --output DIR     # the checkpoint as a model of transformers

Runs can be exported at their end as well: --report-to csv,tensorboard. Nothing changes in the folders that are read.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from infini_eval.api import registry
from infini_eval.api.export import SOURCES, Export
from infini_eval.cli.flags import add_failed_flag, add_flag, add_options, given_flags, read_options
from infini_eval.errors import EXIT_OK, ConfigError, InfiniEvalError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sources",
        nargs="*",
        metavar="SOURCE",
        help="what the format is made from: run folders or folders of such, a checkpoint, or a data set",
    )
    add_flag(
        parser,
        "--format",
        required=True,
        metavar="NAME",
        help="csv, parquet, lm-eval, inspect, tensorboard, mlflow, wandb; hf; lm-eval-task; an unknown name lists all",
    )
    add_flag(
        parser,
        "--output",
        type=Path,
        metavar="PATH",
        help="file or folder (default: results.csv, tensorboard/, … here; mlflow and wandb: as their environment says)",
    )
    add_flag(parser, "--ckpt-path", metavar="DIR", help="the checkpoint, for formats that are made from one")
    add_failed_flag(parser)
    for settings, formats in _readers_of_settings().items():
        group = parser.add_argument_group(
            getattr(settings, "TITLE", settings.__name__), f"formats: {', '.join(formats)}"
        )
        add_options(group, settings)


def run(args: argparse.Namespace) -> int:
    """Export what the format is made from; runs that cannot be read are named."""
    from infini_eval.library import export

    made = registry.export(args.format)
    sources = _sources(args, made)
    _refuse_foreign_flags(args, made)
    written = export(
        *sources,
        format=args.format,
        output=args.output,
        failed_as_wrong=args.failed_as_wrong,
        on_skip=_say_skipped,
        **_own_options(args, made),
    )
    print("\n".join(written))
    return EXIT_OK


def _sources(args: argparse.Namespace, made: Export) -> list[str]:
    """What was named, by its place or by --ckpt-path."""
    if args.ckpt_path is not None and made.made_from != "checkpoint":
        raise ConfigError(
            f"--ckpt-path: the format {args.format} is not made from a checkpoint", valid=SOURCES[made.made_from]
        )
    return [*args.sources, *([] if args.ckpt_path is None else [args.ckpt_path])]


def _own_options(args: argparse.Namespace, made: Export) -> dict[str, Any]:
    """The values of the format's own flags."""
    return {} if made.settings is None else dict(vars(read_options(args, made.settings)))


def _readers_of_settings() -> dict[type, list[str]]:
    """Every settings class of an export, with the formats that read it."""
    readers: dict[type, list[str]] = {}
    for name, made in registry.exports().items():
        if made.settings is not None:
            readers.setdefault(made.settings, []).append(name.replace("_", "-"))
    return readers


def _refuse_foreign_flags(args: argparse.Namespace, made: Export) -> None:
    """A flag of another format is an error, not silently ignored."""
    for settings, formats in _readers_of_settings().items():
        if settings is not made.settings and (foreign := given_flags(args, settings)):
            raise ConfigError(
                f"{', '.join(foreign)}: not for the format {args.format}", valid=f"--format {' or '.join(formats)}"
            )


def _say_skipped(folder: Path, error: InfiniEvalError) -> None:
    print(f"skipped {folder}: {error}", file=sys.stderr)
