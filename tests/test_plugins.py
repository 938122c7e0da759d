"""A package of another distribution adds a task, a scorer, a backend and a report, and nothing else is touched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.limits import PROCESS_S

ROOT = Path(__file__).resolve().parents[1]
TOKENIZER = str(ROOT / "checkpoints/infini-demo/tokenizer")
RUN = ["run", "--task", "weekday", "--backend", "parrot", "--model", "any", "--eval_dataset_path", "data"]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which the package is installed, beside the one of the tests."""
    folder = tmp_path_factory.mktemp("plugin")
    source = shutil.copytree(ROOT / "examples/plugin", folder / "source")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*install, "--target", str(folder / "site"), str(source)], check=True, timeout=PROCESS_S)
    path = os.pathsep.join(filter(None, [str(folder / "site"), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Path:
    """A working folder with data of the package's task."""
    place = tmp_path_factory.mktemp("work")
    made = ["generate", "--task", "weekday", "--tokenizer_path", TOKENIZER, "--context_length", "512"]
    say(environment, place, *made, "--num_prompts", "4", "--save_path", "data", "--quiet")
    return place


def say(environment: dict[str, str], folder: Path, *words: str, expect: int = 0) -> str:
    command = [sys.executable, "-m", "infini_eval", *words]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=PROCESS_S)
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_command_line_knows_all_four(environment: dict[str, str], folder: Path) -> None:
    say(environment, folder, *RUN, "--save_path", "run")
    summary = json.loads((folder / "run/summary.json").read_text())
    assert summary["scorer"] == "first_word" and summary["summary_stats"]["average_accuracy"] == 100
    say(environment, folder, *RUN, "--save_path", "deaf", "--parrot-hears", "no such words")
    said = say(environment, folder, "analyze", "deaf", "--report", "wrong_answers")
    assert "wrong_answers.csv" in said
    assert len((folder / "deaf/wrong_answers.csv").read_text().splitlines()) == 1 + summary["total_samples"]


def test_its_flags_are_its_own(environment: dict[str, str], folder: Path) -> None:
    foreign = say(environment, folder, *RUN, "--save_path", "no", "--memory", "off", expect=2)
    assert "--memory" in foreign and "the backend is parrot" in foreign and "Traceback" not in foreign
    other = ["fake" if word == "parrot" else word for word in RUN]
    refused = say(environment, folder, *other, "--save_path", "no", "--parrot-hears", "x", expect=2)
    assert "--parrot-hears" in refused and "--backend parrot" in refused
    assert "--parrot-hears" in say(environment, folder, "run", "--help")


def test_another_answer_needs_another_folder(environment: dict[str, str], folder: Path) -> None:
    say(environment, folder, *RUN, "--save_path", "twice")
    refused = say(environment, folder, *RUN, "--save_path", "twice", "--parrot-hears", "x", expect=2)
    assert "parrot" in refused.lower() or "settings" in refused


def test_python_knows_them_too(environment: dict[str, str], folder: Path) -> None:
    code = (
        "import infini_eval\n"
        "result = infini_eval.evaluate('any', backend='parrot', task='weekday', data='data', save_path='python')\n"
        "assert result.accuracy == 100, result.accuracy\n"
    )
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=folder, check=True, timeout=PROCESS_S)


def test_without_the_package_its_names_are_unknown(folder: Path) -> None:
    said = say(dict(os.environ), folder, *RUN, "--save_path", "no", expect=2)
    assert "unknown backend 'parrot'" in said and "nanotron" in said


def test_a_broken_package_is_named(environment: dict[str, str], folder: Path, tmp_path: Path) -> None:
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[infini_eval.scorers]\nsplit = no_such_module:score\n")
    broken = environment | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{environment['PYTHONPATH']}"}
    said = say(broken, folder, *RUN, "--save_path", "no", "--scorer", "split", expect=2)
    assert "no_such_module" in said and "broken" in said and "Traceback" not in said
