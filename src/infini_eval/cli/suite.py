"""A suite's name where a task's is asked for: `--task ruler` makes, or runs, RULER's 13 tasks one after the other.

Each task is an ordinary data set in a folder of its own, and an ordinary run: the same command continues it.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import sys
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from infini_eval.api import registry
from infini_eval.api.task import Generator
from infini_eval.data.config import GenerateConfig
from infini_eval.distributed.progress import Countdown
from infini_eval.errors import EXIT_OK, EXIT_USAGE, ConfigError, DataError, InfiniEvalError, MaterialError

if TYPE_CHECKING:
    from infini_eval.data.tokenizer import Tokenizer

PREFIX = "ruler_"  # may be left out in --option TASK.NAME=VALUE
ESSAYS = "english"  # the usual haystack of the tasks that RULER hides in essays: theirs is what --haystack_dir names


def tasks_of(name: str) -> tuple[str, ...]:
    """The tasks of a suite by name, none where it is no suite's."""
    if name.replace("-", "_") != "ruler":
        return ()
    from infini_eval.tasks.ruler import SUITE

    return SUITE


@dataclass(frozen=True)
class Output:
    """Where generated prompts go, and how: all that does not decide what they are, but for the tokenizer."""

    save_path: Path
    tokenizer: str
    format: Literal["parquet", "hf"]
    workers: int
    verify: bool
    hub_id: str | None
    quiet: bool


def generate(config: GenerateConfig, output: Output, tasks: tuple[str, ...]) -> int:
    """Make SAVE_PATH/TASK/LENGTH.parquet for each task and length; what cannot be made is said, with its reason.

    Exit status 0 where only material is missing that was not given, 2 where anything else could not be made.
    """
    from infini_eval.data.tokenizer import open_tokenizer
    from infini_eval.data.write import check_place

    _refuse_generation(config, output)
    check_place(output.save_path)
    tokenizer = open_tokenizer(output.tokenizer)
    options = options_by_task(config.options, tasks)
    reasons: list[tuple[str, InfiniEvalError]] = []
    notes: dict[str, None] = {}
    for name in tasks:
        own = _of_task(config, name, options[name])
        reasons += _make_lengths(own, output, tokenizer, notes)
        with contextlib.suppress(OSError):  # a folder in which nothing was made would look like a data set
            (output.save_path / name).rmdir()
    if not output.quiet:
        for note in notes:
            print(f"note: {note}", flush=True)
    for what, reason in reasons:
        print(f"not made: {what}: {reason}", file=sys.stderr)
    return EXIT_OK if all(isinstance(reason, MaterialError) for _, reason in reasons) else EXIT_USAGE


def _of_task(config: GenerateConfig, name: str, options: Mapping[str, str]) -> GenerateConfig:
    """The settings of one task of the suite."""
    haystack = config.haystack if _generator(name).haystack == ESSAYS else None
    depths = config.depths or (None,)  # random, as published
    return replace(config, task=name, options=options, haystack=haystack, depths=depths)


def _make_lengths(
    config: GenerateConfig, output: Output, tokenizer: Tokenizer, notes: dict[str, None]
) -> list[tuple[str, InfiniEvalError]]:
    """Make one task's data, a file a length: what could not be made, and why."""
    from infini_eval.data.dataset import generate_dataset

    reasons: list[tuple[str, InfiniEvalError]] = []
    for length in config.context_lengths:
        file = output.save_path / config.task / f"{length}.parquet"
        own = replace(config, context_lengths=(length,))
        try:
            with counted(f"{config.task}, {length:,} tokens", quiet=output.quiet) as count:
                made = generate_dataset(
                    own, file, tokenizer, workers=output.workers, verify=output.verify, on_row=count.set
                )
        except MaterialError as error:
            return [*reasons, (config.task, error)]
        except DataError as error:
            reasons.append((f"{config.task}, {length:,} tokens", error))
        else:
            if not output.quiet:
                print(f"{config.task}: {made.num_rows} prompts of {length:,} tokens: {made.path}", flush=True)
            notes |= dict.fromkeys(_generator(config.task).notes)
    return reasons


def counted(what: str, *, quiet: bool = False) -> Countdown:
    """Shows on stderr how many prompts are made, and how long the rest will take."""
    return Countdown(what, None, "prompts", say=lambda line: print(line, file=sys.stderr, flush=True), quiet=quiet)


def _generator(task: str) -> Generator:
    """The generator of one of the suite's tasks; all of them have one."""
    generator = registry.task(task).generator
    assert generator is not None
    return generator


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
    configs = [
        run_config(
            _with(args, task=name, eval_dataset_path=str(data / name), save_path=str(save / name), results_file=None)
        )
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


def options_by_task(options: Mapping[str, str], tasks: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """Each task's own settings: NAME=VALUE goes to all that have such a one, TASK.NAME=VALUE to one of them."""
    found: dict[str, dict[str, str]] = {name: {} for name in tasks}
    known = {name: _generator(name).options for name in tasks}
    for word, value in options.items():
        task, _, option = word.rpartition(".")
        takers = [name for name in tasks if (not task or name in (task, PREFIX + task)) and option in known[name]]
        if not takers:
            valid = ", ".join(f"{name.removeprefix(PREFIX)}.{own}" for name in tasks for own in known[name])
            raise ConfigError(f"--option {word}: no task of the suite has it", valid=valid)
        for name in takers:
            found[name][option] = value
    return found


def _refuse_generation(config: GenerateConfig, output: Output) -> None:
    if not config.context_lengths:
        raise ConfigError("a suite needs the prompts' tokens", valid="--context_length N, several separated by blanks")
    given = {
        "char-count": config.char_counts,
        "control": config.control,
        "needle-segment": config.needle_segment is not None,
        "boundary": config.boundary,
        "is_push_to_hub": output.hub_id,
        "format hf": output.format == "hf",
    }
    refused = [flag for flag, value in given.items() if value]
    if refused:
        raise ConfigError(
            f"--{refused[0]} does not go with a suite", next_step="generate its tasks one by one for that"
        )
    if output.save_path.suffix == ".parquet":
        raise ConfigError(f"--save_path {output.save_path} is a file", valid="a folder: each task gets one in it")


def _with(args: argparse.Namespace, **changed: object) -> argparse.Namespace:
    own = copy(args)
    vars(own).update(changed)
    return own
