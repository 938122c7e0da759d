"""A suite's name where a task's is asked for: `--task ruler` makes, or runs, RULER's 13 tasks one after the other.

Each task is an ordinary data set in a folder of its own, and an ordinary run: the same command continues it.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import sys
from copy import copy
from pathlib import Path

from infini_eval.api import registry
from infini_eval.errors import EXIT_OK, EXIT_USAGE, ConfigError, DataError, InfiniEvalError, MaterialError
from infini_eval.options import option_pairs

PREFIX = "ruler_"  # may be left out in --option TASK.NAME=VALUE
ESSAYS = "english"  # the usual haystack of the tasks that RULER hides in essays: theirs is what --haystack_dir names


def tasks_of(name: str) -> tuple[str, ...]:
    """The tasks of a suite by name, none where it is no suite's."""
    if name.replace("-", "_") != "ruler":
        return ()
    from infini_eval.tasks.ruler import SUITE

    return SUITE


def generate(args: argparse.Namespace, tasks: tuple[str, ...]) -> int:
    """Make SAVE_PATH/TASK/LENGTH.parquet for each task and length; what cannot be made is said, with its reason.

    Exit status 0 where only material is missing that was not given, 2 where anything else could not be made.
    """
    from infini_eval.cli.generate import generator_of, make, tokenizer_at
    from infini_eval.cli.generate_output import check_place

    _refuse_generation(args)
    check_place(Path(args.save_path))
    tokenizer = tokenizer_at(args.tokenizer_path)
    options = options_by_task(args.option, tasks)
    reasons: list[tuple[str, InfiniEvalError]] = []
    notes: dict[str, None] = {}
    for name in tasks:
        generator = generator_of(name)
        for length in args.context_length:
            own = _of_task(args, name, option=options[name], context_length=[length], quiet=True)
            own.save_path = str(Path(args.save_path) / name / f"{length}.parquet")
            own.haystack_dir = args.haystack_dir if generator.haystack == ESSAYS else None
            if not (args.depths or args.depth_percent):
                own.depths = (None,)  # random, as published
            try:
                count, places = make(own, generator, tokenizer)
            except MaterialError as error:
                reasons.append((name, error))
                break
            except DataError as error:
                reasons.append((f"{name}, {length:,} tokens", error))
            else:
                _say(args, f"{name}: {count} prompts of {length:,} tokens: {places[0]}")
                notes |= dict.fromkeys(generator.notes)
        with contextlib.suppress(OSError):  # a folder in which nothing was made would look like a data set
            (Path(args.save_path) / name).rmdir()
    for note in notes:
        _say(args, f"note: {note}")
    for what, reason in reasons:
        print(f"not made: {what}: {reason}", file=sys.stderr)
    return EXIT_OK if all(isinstance(reason, MaterialError) for _, reason in reasons) else EXIT_USAGE


def run(args: argparse.Namespace, tasks: tuple[str, ...]) -> int:
    """Evaluate each task's data into SAVE_PATH/TASK, and print and write the table of all."""
    from infini_eval.cli.evaluation_flags import run_config
    from infini_eval.cli.passkey import evaluate_and_report
    from infini_eval.reports import suite

    if args.judge is not None:
        raise ConfigError("--judge does not go with a suite", next_step="leave --judge out")
    data, save = Path(args.eval_dataset_path), Path(args.save_path)
    there = [name for name in tasks if (data / name).is_dir()]
    if not there:
        raise DataError(
            f"{data} holds none of the suite's tasks",
            valid=f"a folder with {tasks[0]}/, {tasks[1]}/, …",
            next_step=f"infini-eval generate --task {args.task} --save_path {data} …",
        )
    changed = {"results_file": None}
    configs = [
        run_config(_of_task(args, name, eval_dataset_path=str(data / name), save_path=str(save / name), **changed))
        for name in there
    ]
    is_main = True
    for config in configs:
        is_main = evaluate_and_report(config, args.timeout, report=False).is_main
        gc.collect()  # this task's model goes before the next one's is loaded
        if is_main:
            print(suite.finished(config.task, Path(config.save_path), args.failed_as_wrong), flush=True)
    if is_main:
        found = suite.summarise(args.task, save, tasks, failed_as_wrong=args.failed_as_wrong)
        written = suite.write(found, save, Path(args.results_file) if args.results_file else None)
        print(f"\n{suite.render(found)}\nSaved to: {written}")
    return EXIT_OK


def options_by_task(words: list[str], tasks: tuple[str, ...]) -> dict[str, list[str]]:
    """Each task's own settings: NAME=VALUE goes to all that have such a one, TASK.NAME=VALUE to one of them."""
    found: dict[str, list[str]] = {name: [] for name in tasks}
    for word, value in option_pairs(words).items():
        task, _, option = word.rpartition(".")
        wanted = [name for name in tasks if not task or name in (task, PREFIX + task)]
        takers = [name for name in wanted if option in registry.load("tasks", name).generator.options]
        if not takers:
            known = {name: registry.load("tasks", name).generator.options for name in tasks}
            valid = ", ".join(f"{name.removeprefix(PREFIX)}.{own}" for name in tasks for own in known[name])
            raise ConfigError(f"--option {word}: no task of the suite has it", valid=valid)
        for name in takers:
            found[name].append(f"{option}={value}")
    return found


def _refuse_generation(args: argparse.Namespace) -> None:
    if not args.context_length:
        raise ConfigError("a suite needs the prompts' tokens", valid="--context_length N, several separated by blanks")
    refused = [name for name in ("char_count", "control", "needle_segment", "boundary") if getattr(args, name)]
    refused += ["is_push_to_hub"] * (args.is_push_to_hub == "yes") + ["format hf"] * (args.format == "hf")
    if refused:
        flag = refused[0] if refused[0] == "is_push_to_hub" else refused[0].replace("_", "-")
        raise ConfigError(f"--{flag} does not go with a suite", next_step="generate its tasks one by one for that")
    if Path(args.save_path).suffix == ".parquet":
        raise ConfigError(f"--save_path {args.save_path} is a file", valid="a folder: each task gets one in it")


def _of_task(args: argparse.Namespace, name: str, **changed: object) -> argparse.Namespace:
    own = copy(args)
    vars(own).update(task=name, **changed)
    return own


def _say(args: argparse.Namespace, text: str) -> None:
    if not args.quiet:
        print(text, flush=True)
