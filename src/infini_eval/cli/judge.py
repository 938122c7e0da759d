"""Judge the answers of an aa_lcr run with any backend, and report the accuracy with its interval.

  infini-eval judge results/lcr --backend openai --base-url http://127.0.0.1:8000/v1 --model Qwen3-235B-A22B-2507
  infini-eval judge generations.json --backend transformers --model DIR_OR_HUB_ID --protocol v1.0

The same command continues. Verdicts lie under judges/ in the run folder (generations.judges/ beside a JSON file); another
judge's stand beside them, and the report says how far the two agree.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from infini_eval.cli import evaluation_flags as run_command
from infini_eval.cli.flags import add_flag, make_parser
from infini_eval.errors import EXIT_OK, ConfigError

LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", nargs="?", metavar="RUN", help="run folder of aa_lcr, or the JSON file of its answers"
    )
    group = parser.add_argument_group("judge")
    add_flag(group, "--input-json", metavar="FILE", help="the same as RUN")
    add_flag(
        group, "--protocol", default="auto", metavar="NAME", help="v1.0 or v1.1 (default: the data's own, else v1.0)"
    )
    add_flag(group, "--notes", default="", metavar="FILE", help="v1.1: grading notes to use instead of our wording")
    add_flag(
        group, "--judge-name", metavar="NAME", help="folder of its verdicts (default: protocol, backend and model)"
    )
    run_command.add_evaluation_arguments(parser)
    preset(parser, task="aa_lcr_judge", save_path=None, eval_dataset_path=None)


def preset(parser: argparse.ArgumentParser, *, hidden: bool = True, **values: Any) -> None:
    """Give flags a default, so that they need not be typed; hidden ones are not in the help either."""
    for action in parser._actions:
        if action.dest in values:
            action.required = False
            if hidden:
                action.help = argparse.SUPPRESS
    parser.set_defaults(**values)


def run(args: argparse.Namespace) -> int:
    from infini_eval.reports.judged import analyze_questions
    from infini_eval.tasks.aa_lcr.answers import read_generations
    from infini_eval.tasks.aa_lcr.judge import chosen_protocol

    source = Path(_source(args))
    generations = read_generations(source)
    protocol, _ = chosen_protocol(generations, args.protocol)
    folder = generations.judges_folder / (args.judge_name or _slug(f"{protocol.name}-{args.backend}-{args.model_path}"))
    args.eval_dataset_path, args.save_path = str(source), str(folder)
    given = {"protocol": protocol.name} | ({"notes": args.notes} if args.notes else {})
    config = replace(run_command.run_config(args), task_options=tuple(given.items()))
    if any(one.status == "ok" and one.text.strip() for one in generations.items):
        from infini_eval.evaluation.run import evaluate

        if not evaluate(config, timeout_s=args.timeout).is_main:
            return EXIT_OK
    report = analyze_questions(source, failed_as_wrong=config.failed_as_wrong)
    written = report.write()
    print(report.text)
    print(f"\nDetailed summary saved to: {written[0]}\n{report.line_of(folder.name)}")
    return EXIT_OK


def parsed_judge_flags(args: argparse.Namespace) -> argparse.Namespace:
    """The flags in --judge, for the run folder of `args`; ConfigError for another task than aa_lcr."""
    if args.task.replace("-", "_") != "aa_lcr":
        raise ConfigError(f"--judge: answers of the task {args.task} need no judge", valid="--task aa_lcr")
    parser = make_parser(prog="infini-eval judge")
    add_arguments(parser)
    judge = parser.parse_args([args.save_path, *shlex.split(args.judge)])
    run_command.run_config(argparse.Namespace(**vars(judge) | {"save_path": "", "eval_dataset_path": ""}))
    return judge


def judge_afterwards(judge: argparse.Namespace, typed: str) -> int:
    """Judge in this process, or in one of its own where this one belongs to a launch of several."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return run(judge)
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in LAUNCHER and not name.startswith("TORCHELASTIC")
    }
    command = [sys.executable, "-m", "infini_eval", "judge", judge.source, *shlex.split(typed)]
    return subprocess.run(command, env=environment, check=False).returncode


def _source(args: argparse.Namespace) -> str:
    if bool(args.source) == bool(args.input_json):
        raise ConfigError("one source of answers is needed", valid="RUN, or --input-json FILE")
    return args.source or args.input_json


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[-100:]
