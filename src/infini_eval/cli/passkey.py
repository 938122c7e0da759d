"""Evaluate a nanotron checkpoint on a passkey data set: accuracy by depth, one model load, any dp x tp x pp.

  torchrun --nproc_per_node=4 examples/infinite-context-length/scripts/run_passkey_eval.py \\
      --ckpt-path CKPT --save_path results/run --eval_dataset_path DATA --num_samples 50 --dp 4
  infini-eval launch -n 4 passkey --ckpt-path CKPT --save_path results/run --eval_dataset_path DATA --num_samples 50 --dp 4

The same command continues an interrupted run; `python` without torchrun is a single process.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from infini_eval.api import registry
from infini_eval.cli import flags
from infini_eval.config import EvalConfig
from infini_eval.errors import EXIT_OK

if TYPE_CHECKING:
    from infini_eval.evaluation.run import Outcome


def add_arguments(parser: argparse.ArgumentParser) -> None:
    flags.add_checkpoint_flag(parser)
    run_group = parser.add_argument_group("run")
    flags.add_run_flags(run_group)
    flags.add_flag(
        run_group, "--diagnose", action="store_true", help="afterwards say why it works or fails (docs/diagnosis.md)"
    )
    flags.add_flag(
        run_group,
        "--brief",
        action="store_true",
        help="end with one line a context length instead of the report, which is in report.txt",
    )
    flags.add_data_flags(parser.add_argument_group("data"))
    flags.add_topology_flags(parser.add_argument_group("processes"))
    flags.add_model_flags(parser.add_argument_group("model"))
    flags.add_sampling_flags(parser.add_argument_group("sampling"))


def run(args: argparse.Namespace) -> int:
    outcome = evaluate_and_report(flags.eval_config(args, args.ckpt_path), args.timeout, brief=args.brief)
    if outcome.is_main and args.diagnose:
        from infini_eval.cli.diagnose import write_into

        print(write_into(outcome.folder, args))
    return EXIT_OK


def evaluate_and_report(
    config: EvalConfig,
    timeout_s: float,
    make_data: Callable[[], None] | None = None,
    *,
    report: bool = True,
    brief: bool = False,
) -> Outcome:
    """Run or continue an evaluation and print its report; every process of a launch calls this.

    make_data: called on rank 0 before the data are read. report: False for the caller's own report. brief: the report is
    written, and a line a context length printed.
    """
    registry.scorer(config.scorer)  # a wrong name is said before torch is imported
    from infini_eval.library import ready_to_report

    ready_to_report(config)
    from infini_eval.evaluation.run import evaluate

    outcome = evaluate(config, timeout_s=timeout_s, make_data=make_data)
    if outcome.is_main and report:
        from infini_eval.reports.analyze import analyze_any

        run_report = analyze_any(outcome.folder, failed_as_wrong=config.failed_as_wrong)
        written = run_report.write(outcome.folder)
        print(run_report.line if brief else run_report.text + "\n")
        print(f"Detailed summary saved to: {written[0]}")
    if outcome.is_main:
        print_exports(config, outcome.folder)
    return outcome


def print_exports(config: EvalConfig, folder: Path) -> None:
    """Export a finished run as --report-to says, and name what was written."""
    from infini_eval.library import report_to

    for line in report_to(config, folder):
        print(f"exported: {line}")
