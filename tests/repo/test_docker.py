"""examples/llama4-scout: what can be checked of the container's files and scripts where no docker engine runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from support.limits import PROCESS_S

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "llama4-scout"
ROOT = FOLDER.parents[1]


def run_docker(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {name: value for name, value in os.environ.items() if name != "GEMINI_API_KEY"}
    variables |= {"DRY_RUN": "1", **environment}
    return subprocess.run(
        [FOLDER / "run-docker.sh", *arguments], env=variables, capture_output=True, text=True, timeout=PROCESS_S
    )


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["compare", "100000"], "python model_comparison.py --char-count 100000 --test-mode --llama-only"),
        (["compare-full", "1000000"], "python model_comparison.py --char-count 1000000 --llama-only"),
        (["llama"], "python long_context_test.py"),
        (["shell"], "bash"),
    ],
)
def test_the_documents_commands(arguments: list[str], command: str):
    result = run_docker(*arguments)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == f"docker compose run --rm scout {command}"


def test_with_a_key_both_models_are_compared():
    assert "--llama-only" not in run_docker("compare", "100000", GEMINI_API_KEY="x").stdout


def test_help_and_wrong_commands():
    assert "compare-full N" in run_docker().stdout
    assert run_docker("compare").returncode == 2
    assert run_docker("compare", "10k").returncode == 0
    assert [run_docker("compare", wrong).returncode for wrong in ("k", "10x", "1k0", "ten")] == [2] * 4
    assert run_docker("dance").returncode == 2


def test_compose_file():
    service = yaml.safe_load((FOLDER / "docker-compose.yml").read_text())["services"]["scout"]
    assert (FOLDER / service["build"]["context"]).resolve() == ROOT
    assert (ROOT / service["build"]["dockerfile"]).is_file()
    assert all("=" not in entry for entry in service["environment"]), "no value is written into the file"
    assert {"GEMINI_API_KEY", "HF_TOKEN", "MODEL_ID"} <= set(service["environment"])
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert any(volume.endswith(":/work/comparison_results") for volume in service["volumes"])


def test_the_image_copies_what_exists():
    sources = copied()
    assert {"src", "pyproject.toml"} <= set(sources)
    assert not [name for name in sources if not (ROOT / name).exists()]


def copied() -> list[str]:
    """What the Dockerfile copies from the build context."""
    text = (FOLDER / "Dockerfile").read_text()
    return [name for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE) for name in line.split()[:-1]]


def test_the_build_context_has_what_is_copied_and_little_else():
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*", "nothing enters that is not named"
    kept = {rule[1:] for rule in rules if rule.startswith("!")}
    assert kept == set(copied())
    assert not [name for name in kept if name.split("/")[0] in (".git", ".venv", "results", "tests")]
    later = rules[max(rules.index(f"!{name}") for name in kept) + 1 :]
    assert {f"examples/llama4-scout/{place}" for place in ("comparison_results", "hf_cache", "offload_folder")} <= set(
        later
    )


STAND_IN = """#!/usr/bin/env bash
printf '%s\\n' "docker $*" >> "$DOCKER_LOG"
[ "$1" != info ] || echo "Runtimes: nvidia runc"
"""


def test_a_docker_command_is_given_what_the_documents_say(tmp_path: Path):
    """Without DRY_RUN, against a stand-in for docker in a copy of the folder."""
    folder, commands = tmp_path / "scout", tmp_path / "bin"
    folder.mkdir()
    commands.mkdir()
    shutil.copy(FOLDER / "run-docker.sh", folder)
    (commands / "docker").write_text(STAND_IN)
    (commands / "docker").chmod(0o755)
    key = "AIza-not-a-key-0123456789"
    environment = {
        "PATH": f"{commands}:{os.environ['PATH']}",
        "DOCKER_LOG": str(tmp_path / "log"),
        "GEMINI_API_KEY": key,
    }
    for arguments in (
        ["setup"],
        ["compare", "1000"],
        ["compare-full", "1000", "--models", "fake:any"],
        ["llama"],
        ["shell"],
    ):
        done = subprocess.run(
            [folder / "run-docker.sh", *arguments], env=environment, capture_output=True, text=True, timeout=PROCESS_S
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    asked = [line for line in (tmp_path / "log").read_text().splitlines() if " run " in line or " build" in line]
    run = "docker compose run --rm scout"
    assert asked == [
        "docker compose build",
        f"{run} ./setup_and_run.sh",
        f"{run} python model_comparison.py --char-count 1000 --test-mode",
        f"{run} python model_comparison.py --char-count 1000 --models fake:any",
        f"{run} python long_context_test.py",
        f"{run} bash",
    ]
    assert key not in (tmp_path / "log").read_text(), "the key is handed in by name, not on a command line"
    assert {path.name for path in folder.iterdir()} >= {"comparison_results", "hf_cache", "offload_folder"}


@pytest.mark.parametrize("arguments", [["setup"], ["llama"], ["compare", "1000"]])
def test_without_compose_nothing_is_left_behind(tmp_path: Path, arguments: list[str]):
    folder, commands = tmp_path / "scout", tmp_path / "bin"
    folder.mkdir()
    commands.mkdir()
    shutil.copy(FOLDER / "run-docker.sh", folder)
    for tool in ("bash", "dirname", "sed", "grep", "mkdir"):
        found = shutil.which(tool)
        assert found
        (commands / tool).symlink_to(found)
    done = subprocess.run(
        [folder / "run-docker.sh", *arguments],
        env={"PATH": str(commands)},
        capture_output=True,
        text=True,
        timeout=PROCESS_S,
    )
    assert done.returncode == 2
    assert "docker compose was not found" in done.stderr
    assert [path.name for path in folder.iterdir()] == ["run-docker.sh"]


def test_the_compose_file_follows_the_specification():
    """The schema of the compose specification, as check-jsonschema carries it."""
    pytest.importorskip("check_jsonschema")
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*check, FOLDER / "docker-compose.yml"], capture_output=True, text=True, timeout=PROCESS_S)
    assert done.returncode == 0, done.stdout


def test_the_check_of_the_compose_file_can_fail(tmp_path: Path):
    pytest.importorskip("check_jsonschema")
    wrong = tmp_path / "docker-compose.yml"
    wrong.write_text((FOLDER / "docker-compose.yml").read_text().replace("working_dir:", "workdir:"))
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*check, wrong], capture_output=True, text=True, timeout=PROCESS_S)
    assert done.returncode == 1
    assert "workdir" in done.stdout


def test_the_image_is_a_plain_debian_with_the_extras_that_exist():
    text = (FOLDER / "Dockerfile").read_text()
    assert re.findall(r"^FROM (.+)$", text, re.MULTILINE) == ["debian:bookworm-slim"]
    (extras,) = re.findall(r'"\.\[(.+)\]"', text)
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras.split(",")) <= set(known)


@pytest.mark.parametrize("script", ["long_context_test.py", "model_comparison.py"])
def test_scripts_are_commands(script: str):
    done = subprocess.run(
        [sys.executable, FOLDER / script, "--help"], capture_output=True, text=True, timeout=PROCESS_S
    )
    assert done.returncode == 0
    assert "--test-mode" in done.stdout
