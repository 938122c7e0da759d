"""Every Python file opens with what it is, has short functions, and keeps away from pickles."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("src", "scripts", "examples", "benchmarks", "tests")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if path.read_text().strip())
SOURCE = [path for path in FILES if path.is_relative_to(ROOT / "src")]
LONGEST_FUNCTION = 60
PICKLING = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
PICKLING_CALLS = {("torch", "load"), ("torch", "save"), ("pd", "read_pickle"), ("pandas", "read_pickle")}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def opens_with_a_sentence(path: Path) -> bool:
    docstring = ast.get_docstring(parsed(path), clean=False) or ""
    first_line = docstring.split("\n", 1)[0].strip()
    return first_line.endswith((".", "?", "!", ":"))


def long_functions(path: Path) -> Iterator[str]:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > LONGEST_FUNCTION:
                yield f"{name_of(path)}:{node.lineno} {node.name}: {length} lines"


def touches_pickles(node: ast.AST) -> bool:
    if isinstance(node, ast.Import):
        return bool({alias.name.split(".")[0] for alias in node.names} & PICKLING)
    if isinstance(node, ast.ImportFrom):
        return (node.module or "").split(".")[0] in PICKLING
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return (node.value.id, node.attr) in PICKLING_CALLS
    return False


def test_every_file_opens_with_a_line_that_says_what_it_is():
    assert not [name_of(path) for path in FILES if not opens_with_a_sentence(path)]


def test_functions_are_short():
    assert not [line for path in SOURCE for line in long_functions(path)]


def test_no_pickle_is_read_or_written():
    assert not [name_of(path) for path in SOURCE if any(map(touches_pickles, ast.walk(parsed(path))))]


def test_the_checks_can_fail():
    assert touches_pickles(ast.parse("import pickle").body[0])
    assert touches_pickles(ast.parse("from dill import loads").body[0])
    assert touches_pickles(ast.parse("torch.load(path)").body[0].value.func)  # type: ignore[attr-defined]
    assert not touches_pickles(ast.parse("import json").body[0])
