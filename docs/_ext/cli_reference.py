"""A Sphinx directive `cli-reference`: every command with its flags, read from the parsers themselves."""

from __future__ import annotations

import argparse
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import Directive

from infini_eval.cli.flags import make_parser
from infini_eval.cli.main import COMMANDS, load_command


class CliReference(Directive):
    """One section a command: what it does, then its flags with their help."""

    has_content = False
    option_spec: ClassVar[dict[str, Any]] = {}

    def run(self) -> list[nodes.Node]:
        return [_section(name, line) for name, (_, line) in COMMANDS.items()]


def _section(name: str, line: str) -> nodes.section:
    command = load_command(name)
    parser = make_parser(prog=f"infini-eval {name}")
    command.add_arguments(parser)
    section = nodes.section(ids=[nodes.make_id(f"command-{name}")])
    section += nodes.title(text=f"infini-eval {name}")
    section += nodes.paragraph(text=line)
    section += nodes.literal_block(text=command.description.strip(), language="text")
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if action.help != argparse.SUPPRESS]
        if actions:
            section += _flags(parser, group.title or "", actions)
    return section


def _flags(parser: argparse.ArgumentParser, title: str, actions: list[argparse.Action]) -> nodes.Node:
    items = nodes.definition_list()
    formatter = parser._get_formatter()
    for action in actions:
        term = nodes.term("", "", nodes.literal(text=formatter._format_action_invocation(action)))
        text = formatter._expand_help(action) if action.help else ""
        items += nodes.definition_list_item("", term, nodes.definition("", nodes.paragraph(text=text)))
    container = nodes.container()
    container += nodes.rubric(text=title)
    container += items
    return container


def setup(app: Any) -> dict[str, bool]:
    app.add_directive("cli-reference", CliReference)
    return {"parallel_read_safe": True}
