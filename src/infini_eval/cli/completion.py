"""Print a script that lets your shell complete commands, flags and their values.

infini-eval completion bash > ~/.local/share/bash-completion/completions/infini-eval
infini-eval completion zsh > ~/.zfunc/_infini-eval                                        with ~/.zfunc in $fpath
"""

from __future__ import annotations

import argparse
from typing import Any

from infini_eval.cli.flags import make_parser
from infini_eval.errors import EXIT_OK, ConfigError

SHELLS = ("bash", "zsh", "tcsh", "fish")
PLACES = {"DIR": "DIRECTORY", "CKPT": "DIRECTORY", "RUN": "FILE", "FILE": "FILE", "DATA": "FILE", "DATASET": "FILE"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, help="whose script to print")


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    try:
        import shtab
    except ImportError:
        raise ConfigError("completion needs the package shtab", next_step="pip install shtab") from None
    print(shtab.complete(_all_commands(shtab), shell=args.shell))
    return EXIT_OK


def _all_commands(shtab: Any) -> argparse.ArgumentParser:
    """One parser of all commands; values that are files or folders are completed as such."""
    from infini_eval.cli.main import COMMANDS, load_command

    parser = make_parser(prog="infini-eval")
    commands = parser.add_subparsers()
    for name, (_, line) in COMMANDS.items():
        own = commands.add_parser(name, help=line.replace("`", ""), description=line.replace("`", ""))
        load_command(name).add_arguments(own)
        for action in own._actions:
            if isinstance(action.metavar, str) and action.metavar in PLACES:
                action.complete = getattr(shtab, PLACES[action.metavar])  # type: ignore[attr-defined]
    return parser
