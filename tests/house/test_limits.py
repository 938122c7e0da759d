"""Time limits: one for every process that a test starts, below pytest's own, so that both end only what hangs."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from infini_eval.testing.limits import PROCESS_S

ROOT = Path(__file__).resolve().parents[2]
WAITS = ("run", "communicate", "wait", "check_output", "check_call")


def numbers(path: Path) -> Iterator[str]:
    """Time limits that a file writes as numbers: `timeout=` of processes, and marks that overrule pytest's limit."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        given = [word.value for word in node.keywords if word.arg == "timeout" and node.func.attr in WAITS]
        marks = node.args if ast.unparse(node.func) == "pytest.mark.timeout" else []
        if any(isinstance(value, ast.Constant) for value in [*given, *marks]):
            yield f"{path.relative_to(ROOT)}:{node.lineno}"


def test_pytests_limit_lies_above_that_of_processes() -> None:
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert options["timeout"] >= 1.5 * PROCESS_S


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda path: path.stem)
def test_no_test_has_a_limit_of_its_own(path: Path) -> None:
    assert list(numbers(path)) == []
