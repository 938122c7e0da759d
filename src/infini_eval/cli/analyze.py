"""Report on results folders: accuracy by depth with 95 % intervals, statistics, verdicts.

  infini-eval analyze results/run --html
  infini-eval analyze results --quiet                                    every run below a folder

Reads run folders (and any jsonl, parquet or csv with depth_percent, answer, generation_text), descends into folders of
runs, prints the report and writes summary.json and report.txt into each run's folder. Runs that differ only in length
or depth are joined into one report of all lengths, which is written into the folder that holds them. Runs of one model
on several tasks are averaged over the tasks as well.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from infini_eval.api import registry
from infini_eval.api.report import Report
from infini_eval.cli.flags import add_failed_flag, add_flag
from infini_eval.errors import EXIT_OK, EXIT_USAGE, ConfigError, InfiniEvalError, RunFolderError
from infini_eval.reports.joined import NotJoined, brief, join_runs
from infini_eval.reports.model import AnalysedRun, DepthRun, to_text
from infini_eval.reports.over_tasks import TasksAverage, over_tasks, render
from infini_eval.reports.text import effective_lines, render_overview, terminal_shows_bars
from infini_eval.results.files import make_folder
from infini_eval.results.reader import find_runs

SAVED = {".json": "Detailed summary", ".html": "Page"}
JSON_HELP = """print JSON only: one run's summary; of several {"runs": [...]}, a few lines each, with "joined" (all lengths)
and "over_tasks" (several tasks) where they are one model's"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", nargs="+", metavar="DIR", type=Path, help="a run folder, or a folder of run folders")
    add_flag(parser, "--quiet", action="store_true", help="one line a run and context length")
    add_flag(
        parser,
        "--json-only",
        action="store_true",
        help=JSON_HELP,
    )
    add_failed_flag(parser)
    add_flag(
        parser,
        "--html",
        action="store_true",
        help="also write report.html and plots/*.png with their numbers: one page for runs that are joined",
    )
    add_flag(
        parser,
        "--output",
        type=Path,
        metavar="DIR",
        help="where the report of joined runs is written (default: the folder that holds them)",
    )
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
    joined = _joined(runs, args, plain)
    found = _Reports(runs, joined if isinstance(joined, DepthRun) else None, over_tasks(runs), several)
    if args.json_only:
        print(to_text(found.to_json()), end="")
        found.write(args, extra)
        return status
    for line in found.lines(args.quiet, plain):
        print(line)
    if isinstance(joined, NotJoined) and not args.quiet:
        print(f"\n{joined}")
    written = found.write(args, extra)
    if not args.quiet:
        print()
        for path in written:
            print(f"{SAVED.get(path.suffix, 'Report')} saved to: {path}")
    return status


@dataclass(frozen=True)
class _Reports:
    """What is printed and written: every run, and what they make together. several: not just one run given by name."""

    runs: Sequence[AnalysedRun]
    joined: DepthRun | None
    averages: Sequence[TasksAverage]
    several: bool

    def to_json(self) -> object:
        """The one summary, or every run in brief."""
        if not self.several:
            return self.runs[0].summary
        made: dict[str, object] = {"runs": [brief(run) for run in self.runs]}
        made |= {"joined": brief(self.joined)} if self.joined else {}
        return made | ({"over_tasks": self.averages} if self.averages else {})

    def lines(self, quiet: bool, plain: bool) -> Iterator[str]:
        """The report of each run, or of the joined one."""
        if self.joined:
            yield _quiet(self.joined) if quiet else render_overview(self.joined.summary, ascii_only=plain)
        else:
            for number, run in enumerate(self.runs):
                if quiet:
                    yield f"{run.folder}: " * self.several + run.line.replace("\n", "\n  ")
                else:
                    yield "\n\n" * bool(number) + f"{run.folder}\n" * self.several + run.text
        yield from ("\n" + render(average, ascii_only=plain) for average in self.averages)

    def write(self, args: argparse.Namespace, extra: Sequence[Report]) -> list[Path]:
        """Write every run's files, and those of the joined run, which then has the only page."""
        written = _write_all(self.runs, args.html and not self.joined, extra)
        if self.joined is None:
            return written
        if args.output is None and len(args.folders) > 1:
            print("the joined report is not written: --output DIR says where", file=sys.stderr)
            return written
        make_folder(self.joined.folder)
        return [*_write_all([self.joined], args.html, extra), *written]


def _joined(runs: Sequence[AnalysedRun], args: argparse.Namespace, plain: bool) -> DepthRun | NotJoined | None:
    """Several runs that a scorer has read as one, or why not; None where there is nothing to join."""
    depth_runs = [run for run in runs if isinstance(run, DepthRun)]
    if len(depth_runs) < 2 or len(depth_runs) < len(runs):
        if args.output is not None:
            raise ConfigError(
                "--output is for the report of several runs",
                next_step="leave it out: one run's report lies in its folder",
            )
        return None
    return join_runs(depth_runs, args.output or args.folders[0], ascii_only=plain)


def _quiet(joined: DepthRun) -> str:
    """A line a length, and the effective length of them all."""
    effective = joined.summary.effective_context_length
    return joined.line + (f"\n{effective.name}: {effective_lines(effective)[0]}" if effective else "")


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


def _write_all(runs: Sequence[AnalysedRun], html: bool, extra: Sequence[Report] = ()) -> list[Path]:
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
