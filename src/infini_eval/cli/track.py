"""Accuracy over the checkpoints of one training run: every evaluated checkpoint below a folder, by step.

infini-eval track results/steps --output results/over-training
"""

from __future__ import annotations

import argparse
from pathlib import Path

from infini_eval.cli.flags import add_flag
from infini_eval.errors import EXIT_OK
from infini_eval.reports import track
from infini_eval.reports.model import to_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("root", metavar="RESULTS_ROOT", type=Path, help="a folder of run folders, one a checkpoint")
    add_flag(parser, "--json-only", action="store_true", help="print JSON only")
    add_flag(parser, "--output", metavar="DIR", type=Path, help="also write track.json, track.txt and a plot there")


def run(args: argparse.Namespace) -> int:
    """Print the table; write it where asked."""
    tracked = track.track_runs(args.root)
    print(to_text(tracked).rstrip() if args.json_only else track.render(tracked))
    if args.output:
        paths = track.write(tracked, args.output)
        if not args.json_only:
            print("\nsaved to: " + ", ".join(str(path) for path in paths))
    return EXIT_OK
