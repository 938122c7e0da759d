"""Command lines from settings: the flags of a settings class, and the settings that a command line asks for.

A setting's flag is stated once, at its field (`infini_eval.options`). Flags keep the spellings that users' documents have
(`--ckpt-path`, `--context_length`), and each accepts both `-` and `_`. Abbreviations are refused, so that a new flag never
changes what an old command means.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn, TypeVar

from infini_eval.config import EvalConfig, ModelSettings, Sampling, Topology, WeightSettings
from infini_eval.distributed.shutdown import tell_user
from infini_eval.errors import EXIT_USAGE, did_you_mean
from infini_eval.foreign import MOST_SHOWN, shown, valid_text
from infini_eval.options import Option, options_of, path_name, positive_int, sections_of, spelling

Settings = TypeVar("Settings")


class Command(NamedTuple):
    """A command: what --help says of it, what adds its flags to a parser, and what runs it (-> exit status)."""

    description: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


class Parser(argparse.ArgumentParser):
    """Says a mistake in one line instead of after all flags; a misspelt flag before a missing or a wrong one."""

    passes_on = False  # see pass_on

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        given = list(sys.argv[1:] if args is None else args)
        if self.passes_on and given[:1] not in (["-h"], ["--help"]):
            return argparse.Namespace(words=given), []
        for word in given:
            if "\0" in word or valid_text(word) != word:
                self.error(f"{shown(word)} is not UTF-8 text")
        unknown = next(self._unknown_flags(given), None)
        if unknown is not None:
            known = {action.option_strings[0] for action in self._actions if action.option_strings}
            self.error(f"unknown flag {unknown[:MOST_SHOWN]}{did_you_mean(unknown, known)}")
        return super().parse_known_args(given, namespace)

    def error(self, message: str) -> NoReturn:
        tell_user(f"error: {self.prog}: {message}\n  next:  {self.prog} --help")
        sys.exit(EXIT_USAGE)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            near = did_you_mean(str(value), known) or f" (valid: {', '.join(known)})"
            raise argparse.ArgumentError(action, f"unknown {shown(value)}{near}")

    def _unknown_flags(self, given: Sequence[str]) -> Iterator[str]:
        """Words that stand where flags stand, and are none."""
        if any(action.nargs in (argparse.REMAINDER, argparse.PARSER) for action in self._actions):
            return  # what follows belongs to another command
        for word in given:
            name = word.partition("=")[0]
            if word == "--":
                return
            if not re.fullmatch(r"--?[A-Za-z][\w-]*", name) or name in self._option_string_actions:
                continue  # a value, a negative number, a flag
            if name.startswith("--") or name[:2] not in self._option_string_actions:
                yield name


def pass_on(parser: argparse.ArgumentParser, help: str) -> None:
    """Make a parser take all words as they are, as `words`: they belong to another program. Only a --help first is ours."""
    assert isinstance(parser, Parser)
    parser.passes_on = True
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="ARGUMENTS", help=help)


def make_parser(prog: str | None = None, description: str | None = None) -> argparse.ArgumentParser:
    """A parser without abbreviations that shows defaults and keeps a docstring's line breaks."""
    return Parser(
        prog=prog, description=description, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_flag(parser: argparse._ActionsContainer, name: str, **options: Any) -> None:
    """Add `--a_b-c` under its documented spelling, its all-dash and its all-underscore spelling; only the first is shown."""
    if not name.startswith("--"):  # a single letter
        parser.add_argument(name, **options)
        return
    stem = name.removeprefix("--")
    spellings = [name, "--" + stem.replace("_", "-"), "--" + stem.replace("-", "_")]
    options.setdefault("dest", stem.replace("-", "_"))
    action = parser.add_argument(*dict.fromkeys(spellings), **options)
    action.option_strings = [name]  # help and error messages show one spelling; parsing knows them all


def add_options(
    parser: argparse._ActionsContainer,
    settings: type,
    section: str | None = None,
    *,
    choices: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Add a flag for every option that the settings class itself states.

    Args:
        section: of a class whose options are divided, the part to add.
        choices: by field name, what this command accepts where that differs from the field's own choices.
    """
    for field, option in options_of(settings, section):
        name, dest = spelling(field, option), _dest(settings, field.name)
        value = _value(field.default, option, (choices or {}).get(field.name))
        add_flag(parser, name, dest=dest, default=field.default, help=option.help, **value)
        if option.alias:  # it must not put its own default over the other's value
            value |= {"default": argparse.SUPPRESS} | ({} if "action" in value else {"metavar": "V"})
            add_flag(parser, option.alias, dest=dest, help=f"the same as {name}", **value)


def read_options(args: argparse.Namespace, settings: type[Settings], **more: Any) -> Settings:
    """The settings of that class as the command line states them; fields without a flag here keep their defaults.

    Args:
        more: fields that are given otherwise.
    """
    values: dict[str, Any] = {}
    for base in reversed(settings.__mro__):
        if "__dataclass_fields__" not in base.__dict__:
            continue
        for section in sections_of(base):
            for field, option in options_of(base, section):
                given: Any = getattr(args, _dest(base, field.name), field.default)
                given = option.values.get(str(given), given) if option.values else given
                values[field.name] = tuple(given) if option.several else given
    return settings(**(values | more))


def given_flags(args: argparse.Namespace, settings: type) -> list[str]:
    """Flags of a settings class whose values differ from the defaults."""
    return [
        spelling(field, option)
        for field, option in options_of(settings)
        if getattr(args, _dest(settings, field.name), field.default) != field.default
    ]


_PLAIN = (EvalConfig, WeightSettings, ModelSettings, Topology, Sampling)  # their fields' names are unique


def _dest(settings: type, field: str) -> str:
    """The name of a field's value among parsed arguments; settings of different backends may share field names."""
    return field if settings in _PLAIN else f"{settings.__name__}.{field}"


def _value(default: Any, option: Option, choices: Sequence[str] | None) -> dict[str, Any]:
    if isinstance(default, bool) and not option.values:
        return {"action": "store_false" if default else "store_true"}
    accepted = choices or option.choices or tuple(option.values or ())
    found: dict[str, Any] = {"type": option.read} if option.read else {}
    found |= {"choices": tuple(accepted)} if accepted else {}
    found |= {"nargs": "+"} if option.several else {}
    return found | ({"metavar": option.metavar} if option.metavar else {})


def add_checkpoint_flag(parser: argparse._ActionsContainer) -> None:
    add_flag(
        parser,
        "--ckpt-path",
        required=True,
        metavar="DIR",
        help="nanotron checkpoint: a step folder, or its parent with latest.txt",
    )


def add_topology_flags(parser: argparse._ActionsContainer) -> None:
    add_options(parser, Topology)
    add_flag(
        parser,
        "--timeout",
        type=positive_int,
        default=1800,
        metavar="SECONDS",
        help="time limit of one collective (default: %(default)s)",
    )


def add_model_flags(parser: argparse._ActionsContainer) -> None:
    add_options(parser, WeightSettings)
    add_options(parser, ModelSettings)


def add_failed_flag(parser: argparse._ActionsContainer) -> None:
    """The one flag that evaluating and reporting share."""
    field, option = next(pair for pair in options_of(EvalConfig, "run") if pair[0].name == "failed_as_wrong")
    add_flag(parser, spelling(field, option), action="store_true", help=option.help)


def add_sampling_flags(parser: argparse._ActionsContainer) -> None:
    add_options(parser, Sampling)


def add_data_flags(parser: argparse._ActionsContainer) -> None:
    add_flag(
        parser,
        "--eval_dataset_path",
        required=True,
        metavar="DATA",
        help="file of rows (parquet, csv, jsonl, json; .gz, .zst), folder of such, save_to_disk folder or hub id",
    )
    add_options(parser, EvalConfig, "data")


def add_run_flags(parser: argparse._ActionsContainer) -> None:
    add_flag(
        parser,
        "--save_path",
        type=path_name,
        required=True,
        metavar="DIR",
        help="the run folder; the same command continues it",
    )
    add_options(parser, EvalConfig, "run")


def eval_config(args: argparse.Namespace, model_path: str, **more: Any) -> EvalConfig:
    """The parsed flags as one EvalConfig; `more` are fields that not every command has flags for."""
    return read_options(
        args,
        EvalConfig,
        model_path=model_path,
        save_path=args.save_path,
        eval_dataset_path=args.eval_dataset_path,
        model=model_settings(args),
        topology=read_options(args, Topology),
        sampling=sampling(args),
        **more,
    )


def model_settings(args: argparse.Namespace) -> ModelSettings:
    """The model flags as ModelSettings."""
    return read_options(args, ModelSettings)


def sampling(args: argparse.Namespace) -> Sampling:
    """The sampling flags as Sampling."""
    return read_options(args, Sampling, seed=args.seed)
