"""Report on results folders: accuracy by depth with 95 % intervals, statistics, verdicts.

  infini-eval analyze results/run --html
  infini-eval analyze results --quiet                                    every run below a folder

Reads run folders (and any jsonl, parquet or csv with depth_percent, answer, generation_text), descends into folders of
runs, prints the report and writes summary.json and report.txt into each run's folder. Runs of one model on several
tasks are averaged over the tasks as well.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from infini_eval.api import registry
from infini_eval.api.report import Report
from infini_eval.cli.flags import add_failed_flag, add_flag
from infini_eval.errors import EXIT_OK, EXIT_USAGE, InfiniEvalError, RunFolderError
from infini_eval.reports.model import AnalysedRun, to_text
from infini_eval.reports.over_tasks import over_tasks, render
from infini_eval.reports.text import terminal_shows_bars
from infini_eval.results.reader import find_runs

SAVED = {".json": "Detailed summary", ".html": "Page"}
JSON_HELP = 'print JSON only: one summary, or {"runs": [...]}, with "over_tasks" where a model was asked several tasks'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", nargs="+", metavar="DIR", type=Path, help="a run folder, or a folder of run folders")
    add_flag(parser, "--quiet", action="store_true", help="one line a run and context length")
    add_flag(
        parser,
        "--json-only",
        action="store_true",
        help='print JSON only: one summary, or {"runs": [...], "over_tasks": [...]}',
    )
    add_failed_flag(parser)
    add_flag(parser, "--html", action="store_true", help="also write report.html and plots/*.png with their numbers")
    add_flag(
        parser,
        "--report",
        action="append",
        default=[],
        metavar="NAME",
        help="also write this report, ours or another package's; repeatable (an unknown name lists them all)",
    )
    add_flag(parser, "--ascii", action="store_true", help="bars of plain ASCII (default: where the terminal needs it)")


def run(args: argparse.Namespace) -> int:
    """Analyse every run at or below the folders; status 2 where a run given by name cannot be reported on."""
    extra = [registry.load("reports", name) for name in args.report]  # a wrong name is said first
    plain = args.ascii or not terminal_shows_bars()
    runs, status = _analysed(args.folders, plain, args.failed_as_wrong)
    several = len(runs) > 1 or any(run.folder not in args.folders for run in runs)
    averages = over_tasks(runs)
    if args.json_only:
        all_runs: dict[str, object] = {"runs": [{"folder": str(run.folder), **run.summary.to_json()} for run in runs]}
        all_runs |= {"over_tasks": averages} if averages else {}
        print(to_text(all_runs if several else runs[0].summary), end="")
        _write_all(runs, args.html, extra)
        return status
    for number, run in enumerate(runs):
        if args.quiet:
            print(f"{run.folder}: " * several + run.line.replace("\n", "\n  "))
        else:
            print("\n\n" * bool(number) + f"{run.folder}\n" * several + run.text)
    for average in averages:
        print("\n" + render(average, ascii_only=plain))
    written = _write_all(runs, args.html, extra)
    if not args.quiet:
        print()
        for path in written:
            print(f"{SAVED.get(path.suffix, 'Report')} saved to: {path}")
    return status


def _analysed(folders: list[Path], plain: bool, failed_as_wrong: bool) -> tuple[list[AnalysedRun], int]:
    """Every run that can be reported on; a message on stderr for each that cannot."""
    from infini_eval.reports.analyze import analyze_any

    runs: list[AnalysedRun] = []
    status = EXIT_OK
    only = len(folders) == 1
    for folder in folders:
        found = find_runs(folder)
        for path in found:
            try:
                runs.append(analyze_any(path, ascii_only=plain, failed_as_wrong=failed_as_wrong))
            except InfiniEvalError as error:
                if only and len(found) == 1:
                    raise
                print(f"skipped {path}: {error}", file=sys.stderr)
                status = EXIT_USAGE if path == folder else status
    if not runs:
        raise RunFolderError("none of the folders holds a run to report on", next_step="see the messages above")
    return runs, status


def _write_all(runs: list[AnalysedRun], html: bool, extra: Sequence[Report] = ()) -> list[Path]:
    """Write each run's files; a folder that cannot be written costs a message, not the report."""
    written = []
    for run in runs:
        try:
            written.append(run.write()[0])
            written += [path for path in run.write_page() if path.suffix == ".html"] if html else []
            written += [path for report in extra for path in report(run, Path(run.folder))]
        except RunFolderError as error:
            print(f"warning: {error.problem}", file=sys.stderr)
    return written
