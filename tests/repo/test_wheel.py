"""The package as users get it: a wheel, built from the source distribution, used in an empty folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from support.limits import PROCESS_S

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("src", "checkpoints", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "constraints.txt")
BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"
pytestmark = pytest.mark.slow


def run(*command: str, cwd: Path, expect: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | environment
    done = subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=PROCESS_S)
    assert done.returncode == expect, done.stdout + done.stderr
    return done


def build(what: str, source: Path, place: Path) -> Path:
    """The file that `python -m build` would make, without its environment of its own."""
    place.mkdir()
    done = run(sys.executable, "-c", BUILD, what, str(place), cwd=source)
    return place / done.stdout.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    clone = folder / "clone"
    clone.mkdir()
    for part in PARTS:
        if (ROOT / part).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(ROOT / part, clone / part, ignore=ignored)
        else:
            shutil.copy(ROOT / part, clone / part)
    archive = build("build_sdist", clone, folder / "sdist")
    with tarfile.open(archive) as unpacked:
        unpacked.extractall(folder / "unpacked", filter="data")
    (source,) = (folder / "unpacked").iterdir()
    return build("build_wheel", source, folder / "wheel")


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's files, to be found before this clone's."""
    site = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as unpacked:
        unpacked.extractall(site)
    return site


def infini_eval(site: Path, cwd: Path, *arguments: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
    offline = {"PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return run(sys.executable, "-m", "infini_eval", *arguments, cwd=cwd, expect=expect, **offline)


def test_what_the_wheel_holds(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as unpacked:
        names = unpacked.namelist()
    inside = {name for name in names if name.startswith("infini_eval/demo/")}
    shipped = ROOT / "checkpoints" / "infini-demo"
    files = {path.relative_to(shipped.parent).as_posix() for path in shipped.rglob("*") if path.is_file()}
    assert inside == {f"infini_eval/demo/{name}" for name in files}
    assert "infini_eval/py.typed" in names and any(name.startswith("infini_eval/planning/presets/") for name in names)
    assert wheel.stat().st_size < 5_000_000


def test_the_demo_in_an_empty_folder(site: Path, tmp_path: Path) -> None:
    done = run(
        sys.executable, "-c", "import infini_eval; print(infini_eval.__file__)", cwd=tmp_path, PYTHONPATH=str(site)
    )
    assert done.stdout.startswith(str(site))
    said = infini_eval(site, tmp_path, "demo").stdout
    assert "210 prompts in infini-demo/data" in said and "--ckpt-path infini-demo" in said
    few = ("--depths", "0,50", "--num_samples", "1", "--quiet")
    asked = ("--ckpt-path", "infini-demo", "--eval_dataset_path", "infini-demo/data", "--save_path", "results/on")
    infini_eval(site, tmp_path, "passkey", *asked, *few, "--device", "cpu")
    assert json.loads((tmp_path / "results/on/summary.json").read_text())["total_samples"] == 2
    infini_eval(site, tmp_path, "demo")  # again: everything is there
    (tmp_path / "infini-demo/latest.txt").write_text("other")
    refused = infini_eval(site, tmp_path, "demo", expect=2).stderr
    assert "infini-demo/latest.txt is another file than the demo's" in refused
    infini_eval(site, tmp_path, "demo", "--overwrite")
    assert (tmp_path / "infini-demo/latest.txt").read_text() == "7102"


def test_own_data_without_any_model(site: Path, tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("question,target\nWho?,Ibsen\n")
    asked = ("--task", "qa", "--model", "fake:any", "--eval_dataset_path", "own.csv", "--save_path", "run", "--quiet")
    said = infini_eval(site, tmp_path, "run", *asked)
    assert "100.00%" in said.stdout and "--columns prompt=question,answer=target" in said.stderr


def test_an_installation_without_the_demo_says_so(site: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(site, bare)
    shutil.rmtree(bare / "infini_eval" / "demo")
    said = infini_eval(bare, tmp_path, "demo", expect=2).stderr
    assert "does not hold the demo checkpoint" in said and "fake:any" in said and "Traceback" not in said
