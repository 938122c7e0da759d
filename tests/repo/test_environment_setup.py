"""scripts/_common.sh: which Python it takes, and when an environment counts as installed; nothing is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Stands for `python`: answers version questions with the real one, and only records `-m venv` and `-m pip`.
FAKE_PYTHON = """#!/usr/bin/env bash
if [ "$1" = -m ]; then
    echo "$2 ${*:3}" >>"$CALLS"
    if [ "$2" = venv ]; then mkdir -p "${@: -1}/bin" && cp "$0" "${@: -1}/bin/python"; fi
    if [ "$2" = pip ]; then exit "${PIP_STATUS:-0}"; fi
else
    exec @PYTHON@ "$@"
fi
"""


class Clone:
    """A folder with just what _common.sh reads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls = folder / "calls"
        (folder / "scripts").mkdir()
        for name in ("scripts/_common.sh", "pyproject.toml", "setup.py", "constraints.txt"):
            shutil.copy(ROOT / name, folder / name)
        self.python = folder / "python"
        self.python.write_text(FAKE_PYTHON.replace("@PYTHON@", sys.executable))
        self.python.chmod(0o755)

    def set_up(self, **environment: str) -> subprocess.CompletedProcess[str]:
        self.calls.write_text("")
        variables = {**os.environ, "CALLS": str(self.calls), "PYTHON": str(self.python), **environment}
        script = 'set -euo pipefail; source scripts/_common.sh; setup_environment "$ROOT/.venv" dev'
        return subprocess.run(["bash", "-c", script], cwd=self.folder, env=variables, capture_output=True, text=True)

    def installed(self) -> list[str]:
        return [line for line in self.calls.read_text().splitlines() if line.startswith("pip ")]


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


SCOUT = "examples/llama4-scout"

# Stands for a `python` that has infini_eval but not the packages named in $LACKS.
HAS_INFINI_EVAL = """#!/usr/bin/env bash
case "$1 $2" in
    "-c import infini_eval") exit 0 ;;
    "-c import importlib"*) [[ " $LACKS " != *" $3 "* ]] ;;
    "-m pip") echo "pip ${*:3}" >>"$CALLS"; exit "${PIP_STATUS:-0}" ;;
    *) exit 0 ;;
esac
"""


def set_up_scout(tmp_path: Path, **environment: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    folder, calls, python = tmp_path / SCOUT, tmp_path / "calls", tmp_path / "python"
    folder.mkdir(parents=True)
    shutil.copy(ROOT / SCOUT / "setup_and_run.sh", folder)
    shutil.copy(ROOT / "constraints.txt", tmp_path)
    python.write_text(HAS_INFINI_EVAL)
    python.chmod(0o755)
    calls.touch()
    variables = {**os.environ, "CALLS": str(calls), "PYTHON": str(python), "LACKS": "", **environment}
    command = [folder / "setup_and_run.sh", "-y"]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return done, calls.read_text().splitlines()


def test_the_comparison_installs_what_an_existing_environment_lacks(tmp_path: Path):
    done, calls = set_up_scout(tmp_path, LACKS="accelerate google.genai")
    assert done.returncode == 0, done.stderr
    assert calls == [f"pip install --quiet -c {tmp_path}/constraints.txt accelerate google-genai"]


def test_a_complete_environment_is_left_alone(tmp_path: Path):
    assert set_up_scout(tmp_path)[1] == []


def test_the_comparison_goes_on_where_nothing_can_be_installed(tmp_path: Path):
    done, _ = set_up_scout(tmp_path, LACKS="openai", PIP_STATUS="1")
    assert done.returncode == 0
    assert "warning: not installed" in done.stdout


def test_installs_pinned_torch_first_then_the_project(clone: Clone):
    result = clone.set_up()
    assert result.returncode == 0, result.stderr
    torch, project = clone.installed()
    assert torch.split()[-1] == "torch==2.13.0"
    assert project.endswith(f"-c {clone.folder}/constraints.txt -e {clone.folder}[dev]")


def test_second_time_installs_nothing(clone: Clone):
    clone.set_up()
    result = clone.set_up()
    assert not clone.installed()
    assert "up to date" in result.stdout


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_changed_dependencies_install_again(clone: Clone, name: str):
    clone.set_up()
    path = clone.folder / name
    path.write_text("# changed\n" + path.read_text())
    clone.set_up()
    assert len(clone.installed()) == 2


def test_changed_settings_of_the_tools_install_nothing(clone: Clone):
    clone.set_up()
    path = clone.folder / "pyproject.toml"
    path.write_text(path.read_text().replace("line-length = 120", "line-length = 100"))
    clone.set_up()
    assert not clone.installed()


def test_failed_installation_is_told_and_not_taken_for_done(clone: Clone):
    result = clone.set_up(PIP_STATUS="1")
    assert result.returncode == 2
    assert "torch could not be installed" in result.stderr
    clone.set_up()
    assert len(clone.installed()) == 2


def test_unusable_python_is_named(clone: Clone):
    result = clone.set_up(PYTHON="/nowhere/python")
    assert result.returncode == 2
    assert "PYTHON=/nowhere/python" in result.stderr
    assert "3.11 to 3.14" in result.stderr
