"""The hosted workflow runs .ci/run on every supported Python, and pre-commit runs what scripts/check.sh runs, without network."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("ruff check", "ruff format", "mypy", "lint-imports")


def loaded(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


def test_workflow_runs_the_script_on_every_supported_python() -> None:
    job = loaded(".github/workflows/ci.yml")["jobs"]["checks-and-tests"]
    assert ".ci/run" in [step.get("run") for step in job["steps"]]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    oldest, newest = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", project["requires-python"]).groups()
    supported = [f"3.{minor}" for minor in range(int(oldest), int(newest))]
    assert job["strategy"]["matrix"]["python"] == supported
    named = [line.rpartition(" ")[2] for line in project["classifiers"] if "Python :: 3." in line]
    assert named == supported
    common = (ROOT / "scripts/_common.sh").read_text()
    assert f"OLDEST_PYTHON={supported[0]}\n" in common and f"NEWEST_PYTHON={supported[-1]}\n" in common


def test_pre_commit_runs_what_the_checks_run() -> None:
    repositories = loaded(".pre-commit-config.yaml")["repos"]
    assert [repository["repo"] for repository in repositories] == ["local"], "hooks from the network"
    entries = [hook["entry"] for hook in repositories[0]["hooks"]]
    check = (ROOT / "scripts/check.sh").read_text()
    for tool in TOOLS:
        assert [entry for entry in entries if entry.startswith(tool)], tool
        assert re.search(rf'^check "[^"]+" {tool}\b', check, re.MULTILINE), tool


def test_checks_build_the_site() -> None:
    assert "sphinx -W" in (ROOT / "scripts/check.sh").read_text()
