"""From a public name to the file that implements it: tasks, scorers, backends and reports.

A file that defines the attribute of its kind (`ATTRIBUTE`) has its stem as public name. A file of several tasks of one
family defines `TASKS` instead: a dictionary, written out, whose keys are their names. Other distributions add names
through entry points of the group `infini_eval.<kind>`.
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import re
import sys
from pathlib import Path
from typing import Any

from infini_eval.errors import ConfigError

ATTRIBUTE = {"tasks": "TASK", "scorers": "score", "backends": "Backend", "reports": "write"}
TABLE = {"tasks": "TASKS"}  # where one file implements several names


def names(kind: str) -> list[str]:
    """Every name of that kind, sorted: the package's own files that define it, and entry points. Imports none of them."""
    return sorted({*_own(kind), *_entry_points(kind)})


def load(kind: str, name: str) -> Any:
    """The object behind a name; a ConfigError that lists the valid names where there is none."""
    name = name.replace("-", "_")
    if name not in names(kind):
        raise ConfigError(
            f"unknown {kind.removesuffix('s')} {name!r}",
            valid=", ".join(names(kind)),
            next_step=f"choose one of these, or add src/infini_eval/{kind}/{name}.py",
        )
    point = _entry_points(kind).get(name)
    if point is not None:
        return point.load()
    module = importlib.import_module(f"infini_eval.{kind}.{_own(kind)[name]}")
    table = getattr(module, TABLE[kind], None) if kind in TABLE else None
    return getattr(module, ATTRIBUTE[kind]) if table is None else table[name]


def companion(kind: str, name: str, attribute: str) -> Any:
    """A further attribute of the file that implements a name, None where it has none."""
    return getattr(sys.modules[load(kind, name).__module__], attribute, None)


def _own(kind: str) -> dict[str, str]:
    """The names of the package's own files, each with its file's stem; files that define none are parts of others."""
    found: dict[str, str] = {}
    for path in sorted((Path(__file__).parent / kind).glob("[!_]*.py")):
        text = path.read_text(encoding="utf-8")
        if re.search(rf"^(?:def |class )?{ATTRIBUTE[kind]}\b", text, re.MULTILINE):
            found[path.stem] = path.stem
        elif kind in TABLE:
            found |= dict.fromkeys(_keys(text, TABLE[kind]), path.stem)
    return found


def _keys(text: str, table: str) -> list[str]:
    """The keys of a dictionary that a file writes out at its top level."""
    if not re.search(rf"^{table}\b", text, re.MULTILINE):
        return []
    for node in ast.parse(text).body:
        target = (
            node.target
            if isinstance(node, ast.AnnAssign)
            else node.targets[0]
            if isinstance(node, ast.Assign)
            else None
        )
        if isinstance(target, ast.Name) and target.id == table:
            assert isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict)
            return [str(ast.literal_eval(key)) for key in node.value.keys if key is not None]
    return []


def _entry_points(kind: str) -> dict[str, importlib.metadata.EntryPoint]:
    return {point.name: point for point in importlib.metadata.entry_points(group=f"infini_eval.{kind}")}
