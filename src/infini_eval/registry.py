"""From a public name to the file that implements it: tasks, scorers, backends and reports are one file each.

The stem of a file is its public name. Other distributions add names through entry points of the group
`infini_eval.<kind>`. A file of each kind defines the one attribute listed in `ATTRIBUTE`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import sys
from pathlib import Path
from typing import Any

from infini_eval.errors import ConfigError

ATTRIBUTE = {"tasks": "TASK", "scorers": "score", "backends": "Backend", "reports": "write"}


def names(kind: str) -> list[str]:
    """Every name of that kind, sorted: the package's own files that define it, and entry points. Imports none of them."""
    folder = Path(__file__).parent / kind
    own = [path.stem for path in folder.glob("[!_]*.py") if _defines(path, ATTRIBUTE[kind])]
    return sorted({*own, *_entry_points(kind)})


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
    return getattr(importlib.import_module(f"infini_eval.{kind}.{name}"), ATTRIBUTE[kind])


def companion(kind: str, name: str, attribute: str) -> Any:
    """A further attribute of the file that implements a name, None where it has none."""
    return getattr(sys.modules[load(kind, name).__module__], attribute, None)


def _defines(path: Path, attribute: str) -> bool:
    """Whether a file defines the attribute at its top level; the other files of the folder are parts of these."""
    return re.search(rf"^(?:def |class )?{attribute}\b", path.read_text(encoding="utf-8"), re.MULTILINE) is not None


def _entry_points(kind: str) -> dict[str, importlib.metadata.EntryPoint]:
    return {point.name: point for point in importlib.metadata.entry_points(group=f"infini_eval.{kind}")}
