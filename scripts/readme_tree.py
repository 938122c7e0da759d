"""Rewrites the tree in README.md: one line a source file, each with the first line of its docstring."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "infini_eval"
# from the top of the import law downwards; a file stands above everything it imports
ORDER = (
    "cli reports evaluate.py evaluation diagnosis planning tasks scorers backends engine data results models distributed "
    "checkpoint registry.py config.py records.py errors.py __main__.py testing"
).split()
BLOCK = re.compile(r"```\nsrc/infini_eval/\n.*?```", re.DOTALL)
WIDTH = 150


def first_line(path: Path) -> str:
    """The first line of a file's docstring, without its full stop."""
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    return docstring.split("\n")[0].rstrip(".")


def lines_of(path: Path, depth: int) -> list[str]:
    """The lines of a file, or of a folder and what is in it."""
    indent = "  " * depth
    if path.is_file():
        return [f"{indent}{path.name:<{30 - len(indent)}}  {first_line(path)}"[:WIDTH].rstrip()]
    inside = sorted(p for p in path.iterdir() if (p.suffix == ".py" and p.name != "__init__.py") or _is_package(p))
    inside.sort(key=lambda p: (p.is_dir(), p.name))
    head = f"{indent}{path.name + '/':<{30 - len(indent)}}  {first_line(path / '__init__.py')}"[:WIDTH].rstrip()
    return [head, *(line for child in inside for line in lines_of(child, depth + 1))]


def tree() -> str:
    """The whole block, with its fences."""
    names = {path.name for path in PACKAGE.iterdir() if path.suffix == ".py" or _is_package(path)} - {"__init__.py"}
    missing = names - set(ORDER)
    assert not missing, f"no place in ORDER for {', '.join(sorted(missing))}"
    lines = [line for name in ORDER if name in names for line in lines_of(PACKAGE / name, 1)]
    return "\n".join(["```", "src/infini_eval/", *lines, "```"])


def _is_package(path: Path) -> bool:
    return path.is_dir() and (path / "__init__.py").exists()


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(BLOCK.sub(lambda _: tree(), readme.read_text(), count=1))
