"""The commands' flags are frozen in flags.txt: users' documents quote them.

After a deliberate change: python tests/house/test_flags.py --write
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import sys
from pathlib import Path

import pytest

from infini_eval.cli.flags import make_parser
from infini_eval.cli.main import COMMANDS

FROZEN = Path(__file__).with_name("flags.txt")

# As the evaluation guide's commands spell them.
GUIDE = (
    "--ckpt-path C --save_path S --eval_dataset_path D --num_shots 0 --num_digits 0 --seed 42 --num_samples 50 "
    "--max-new-tokens 15 --dp 4 --tp 1 --pp 1"
)


def parser_of(command: str) -> argparse.ArgumentParser:
    module = importlib.import_module(f"infini_eval.cli.{COMMANDS[command][0]}")
    parser = make_parser(prog=command)
    module.add_arguments(parser)
    return parser


def actions_of(parser: argparse.ArgumentParser, prefix: str) -> list[str]:
    """One line an argument: command, spelling, choices or metavar, whether it must be given."""
    lines = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, subparser in action.choices.items():
                lines += actions_of(subparser, f"{prefix} {name}")
        elif not isinstance(action, argparse._HelpAction):
            lines.append(f"{prefix} {described(action)}")
    return lines


def described(action: argparse.Action) -> str:
    spelling = "/".join(action.option_strings) or f"<{action.dest}>"
    choices = f" {{{','.join(map(str, action.choices))}}}" if action.choices else ""
    takes_nothing = action.nargs == 0
    return f"{spelling}{'' if takes_nothing else choices or ' VALUE'}{' required' if action.required else ''}"


def all_flags() -> str:
    return "\n".join(line for command in COMMANDS for line in actions_of(parser_of(command), command)) + "\n"


def test_flags_are_frozen():
    frozen = FROZEN.read_text() if FROZEN.exists() else ""
    difference = "\n".join(difflib.unified_diff(frozen.splitlines(), all_flags().splitlines(), "frozen", "now", n=0))
    assert not difference, f"{difference}\nmeant so? python tests/house/test_flags.py --write"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_states_real_defaults(command: str):
    assert "default: None" not in " ".join(parser_of(command).format_help().split())


@pytest.mark.parametrize("swap", [("", ""), ("_", "-"), ("-", "_")], ids=["as written", "dashes", "underscores"])
def test_the_guides_spellings_parse(swap: tuple[str, str]):
    arguments = [
        "--" + word[2:].replace(*swap) if swap[0] and word.startswith("--") else word for word in GUIDE.split()
    ]
    args = parser_of("passkey").parse_args(arguments)
    assert (args.ckpt_path, args.save_path, args.eval_dataset_path) == ("C", "S", "D")
    assert (args.num_shots, args.num_digits, args.seed, args.num_samples) == (0, 0, 42, 50)
    assert (args.max_new_tokens, args.dp, args.tp, args.pp) == (15, 4, 1, 1)


def test_abbreviations_are_refused(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        parser_of("passkey").parse_args([*GUIDE.split(), "--max-new", "3"])
    assert stop.value.code == 2
    assert "--max-new" in capsys.readouterr().err


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python tests/house/test_flags.py --write")
    FROZEN.write_text(all_flags())
