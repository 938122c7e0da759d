"""The import law of CONTRIBUTING.md holds: every contract of import-linter in pyproject.toml is kept."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

from infini_eval.testing.limits import PROCESS_S

ROOT = Path(__file__).resolve().parents[2]
LINT = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"


def test_contracts_are_kept():
    result = subprocess.run([sys.executable, "-c", LINT], cwd=ROOT, capture_output=True, text=True, timeout=PROCESS_S)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_package_has_its_row():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    rows = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    placed = {name.strip(" ()") for row in rows for name in row.split("|")}
    package = ROOT / "src" / "infini_eval"
    packages = {path.parent.name for path in package.glob("*/__init__.py")}
    modules = {path.stem for path in package.glob("*.py")} - {"__init__"}
    assert packages | modules <= placed
