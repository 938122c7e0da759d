"""Evaluate any model on any task: the general command behind the others.

  infini-eval run --task passkey --backend transformers --model DIR_OR_HUB_ID --eval_dataset_path DATA --save_path results/run
  infini-eval run --task passkey --backend openai --base-url http://127.0.0.1:8000/v1 --model NAME ...
  torchrun --nproc_per_node=2 -m infini_eval run --task passkey --backend transformers --tp 2 --model ...
  infini-eval run --task passkey --backend fake --model any --eval_dataset_path DATA --save_path results/tried    no model at all

The same command continues an interrupted run. Keys are read from OPENAI_API_KEY, GEMINI_API_KEY or GOOGLE_API_KEY.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

from infini_eval.cli import suite
from infini_eval.cli.evaluation_flags import add_evaluation_arguments, run_config
from infini_eval.cli.flags import add_flag
from infini_eval.cli.judge import judge_afterwards, parsed_judge_flags
from infini_eval.cli.passkey import evaluate_and_report, print_exports
from infini_eval.errors import EXIT_OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_evaluation_arguments(parser)
    add_flag(
        parser,
        "--judge",
        metavar="FLAGS",
        help="aa_lcr: judge the answers afterwards; the flags of infini-eval judge in quotes, as '--backend openai --model X'",
    )


def run(args: argparse.Namespace) -> int:
    if tasks := suite.tasks_of(args.task):
        return suite.run(args, tasks)
    if args.judge is None:
        evaluate_and_report(run_config(args), args.timeout)
        return EXIT_OK
    from infini_eval.library import ready_to_report

    judge, judge_timeout_s = parsed_judge_flags(args)  # a mistake there is said before hours of generation
    config = run_config(args)
    ready_to_report(config)
    outcome = evaluate_and_report(replace(config, report_to=()), args.timeout, report=False)
    status = judge_afterwards(judge, judge_timeout_s) if outcome.is_main else EXIT_OK
    if outcome.is_main and status == EXIT_OK:
        print_exports(config, outcome.folder)  # with the judge's verdicts
    return status
