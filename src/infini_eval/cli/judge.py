"""Judge the answers of an aa_lcr run with any backend, and report the accuracy with its interval.

  infini-eval judge results/lcr --backend openai --base-url http://127.0.0.1:8000/v1 --model Qwen3-235B-A22B-2507
  infini-eval judge generations.json --backend transformers --model DIR_OR_HUB_ID --protocol v1.0

The same command continues. Verdicts lie under judges/ in the run folder (generations.judges/ beside a JSON file); another
judge's stand beside them, and the report says how far the two agree.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infini_eval.cli import evaluation_flags as run_command
from infini_eval.cli import isolated
from infini_eval.cli.flags import add_flag, make_parser
from infini_eval.cli.passkey import print_exports
from infini_eval.config import JudgeConfig
from infini_eval.errors import EXIT_OK, ConfigError

if TYPE_CHECKING:
    from infini_eval.library import JudgeOutcome


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
    from infini_eval.library import judge_answers, ready_to_report

    config = judge_config(args)
    if config.judge.report_to and not Path(config.source).is_dir():
        raise ConfigError(
            f"--report-to: {config.source} is no run folder", next_step="judge the run folder of run --task aa_lcr"
        )
    ready_to_report(config.judge)
    judged = judge_answers(config, timeout_s=args.timeout)
    if judged is not None:
        _show(judged)
        print_exports(config.judge, Path(config.source))
    return EXIT_OK


def judge_config(args: argparse.Namespace) -> JudgeConfig:
    """The parsed flags as one JudgeConfig."""
    source = _source(args)
    judge = run_command.run_config(argparse.Namespace(**vars(args) | {"save_path": "", "eval_dataset_path": ""}))
    return JudgeConfig(source, judge, args.protocol, args.notes, args.judge_name)


def parsed_judge_flags(args: argparse.Namespace) -> tuple[JudgeConfig, float]:
    """What the flags in --judge ask for on the run folder of `args`, and the time limit of a collective.

    Raises:
        ConfigError: another task than aa_lcr, or flags that cannot be used.
    """
    if args.task.replace("-", "_") != "aa_lcr":
        raise ConfigError(f"--judge: answers of the task {args.task} need no judge", valid="--task aa_lcr")
    parser = make_parser(prog="infini-eval judge")
    add_arguments(parser)
    flags = parser.parse_args([args.save_path, *shlex.split(args.judge)])
    return judge_config(flags), flags.timeout


def judge_afterwards(config: JudgeConfig, timeout_s: float) -> int:
    """Judge in this process, or in one of its own where this one belongs to a launch of several."""
    from infini_eval.library import JudgeOutcome, judge_answers

    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        judged = judge_answers(config, timeout_s=timeout_s)
        assert judged is not None  # the only process is rank 0
        _show(judged)
        return EXIT_OK
    made = isolated.call("judge", config, timeout_s=timeout_s)
    if made.error is not None:
        print(f"error: {made.error}", file=sys.stderr)
        return made.status
    _show(JudgeOutcome(**made.value))
    return EXIT_OK


def _show(judged: JudgeOutcome) -> None:
    print(judged.text)
    print(f"\nDetailed summary saved to: {judged.summary_file}\n{judged.line}")


def _source(args: argparse.Namespace) -> str:
    if bool(args.source) == bool(args.input_json):
        raise ConfigError("one source of answers is needed", valid="RUN, or --input-json FILE")
    return str(args.source or args.input_json)
