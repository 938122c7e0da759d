"""Compare runs on the same samples: differences with 95 % intervals and p-values, each run against the first.

  infini-eval compare results/quickstart/16k-on results/quickstart/16k-ablate --output results/on-against-ablated

Samples are paired by their content, so both runs must have been made on the same data; what differs is said otherwise.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infini_eval.cli.flags import add_flag
from infini_eval.errors import EXIT_OK
from infini_eval.reports import compare
from infini_eval.reports.model import to_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", nargs="+", metavar="RUN", type=Path, help="run folders; the first is the baseline A")
    add_flag(parser, "--json-only", action="store_true", help="print JSON only")
    add_flag(
        parser,
        "--output",
        metavar="DIR",
        type=Path,
        help="also write compare.json, compare.txt, compare.html and a plot there",
    )


def run(args: argparse.Namespace) -> int:
    """Print the comparison; write it where asked."""
    from infini_eval.reports import judged
    from infini_eval.reports.analyze import report_kind

    by_questions = any(path.is_file() or report_kind(path) == "questions" for path in args.folders)
    made: Any = judged.compare_questions(args.folders) if by_questions else compare.compare_runs(args.folders)
    text, write = (judged.comparison_text, judged.write_comparison) if by_questions else (compare.render, compare.write)
    print(to_text(made).rstrip() if args.json_only else text(made))
    if args.output:
        paths = [*write(made, args.output), write_page(args.folders, args.output)]
        if not args.json_only:
            print("\nsaved to: " + ", ".join(str(path) for path in paths))
    return EXIT_OK


def write_page(folders: Sequence[Path], output: Path) -> Path:
    """Write compare.html, the browser of results for these runs; returns its path."""
    from infini_eval.reports.site import comparison_page
    from infini_eval.results.files import write_atomically

    path = output / "compare.html"
    write_atomically(path, comparison_page(folders).encode())
    return path
