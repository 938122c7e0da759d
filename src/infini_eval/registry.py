"""From a public name to the file that implements it: tasks, scorers, backends and reports are one file each.

The stem of a file is its public name; a folder counts as a file, and a part of it is named FOLDER_PART. Other
distributions add names through entry points of the group `infini_eval.<kind>`. A file of each kind defines the one
attribute listed in `ATTRIBUTE`.
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
    return getattr(importlib.import_module(f"infini_eval.{kind}.{_own(kind)[name]}"), ATTRIBUTE[kind])


def companion(kind: str, name: str, attribute: str) -> Any:
    """A further attribute of the file that implements a name, None where it has none."""
    return getattr(sys.modules[load(kind, name).__module__], attribute, None)


def _own(kind: str) -> dict[str, str]:
    """The names of the package's own files of that kind, each with its module below the kind's package."""
    folder = Path(__file__).parent / kind
    files = [path for pattern in ("[!_]*.py", "[!_]*/*.py") for path in folder.glob(pattern)]
    parts = [path.relative_to(folder).with_suffix("").parts for path in files if _defines(path, ATTRIBUTE[kind])]
    modules = [[part for part in each if part != "__init__"] for each in parts]
    return {"_".join(each): ".".join(each) for each in modules}


def _defines(path: Path, attribute: str) -> bool:
    """Whether a file defines the attribute at its top level; the other files of the folder are parts of these."""
    return re.search(rf"^(?:def |class )?{attribute}\b", path.read_text(encoding="utf-8"), re.MULTILINE) is not None


def _entry_points(kind: str) -> dict[str, importlib.metadata.EntryPoint]:
    return {point.name: point for point in importlib.metadata.entry_points(group=f"infini_eval.{kind}")}
