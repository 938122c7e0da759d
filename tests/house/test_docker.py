"""examples/llama4-scout: what can be checked of the container's files and scripts where no docker engine runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "llama4-scout"
ROOT = FOLDER.parents[1]


def run_docker(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {name: value for name, value in os.environ.items() if name != "GEMINI_API_KEY"}
    variables |= {"DRY_RUN": "1", **environment}
    return subprocess.run(
        [FOLDER / "run-docker.sh", *arguments], env=variables, capture_output=True, text=True, timeout=30
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
    text = (FOLDER / "Dockerfile").read_text()
    sources = [name for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE) for name in line.split()[:-1]]
    assert {"src", "pyproject.toml"} <= set(sources)
    assert not [name for name in sources if not (ROOT / name).exists()]


@pytest.mark.parametrize("script", ["long_context_test.py", "model_comparison.py"])
def test_scripts_are_commands(script: str):
    done = subprocess.run([sys.executable, FOLDER / script, "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "--test-mode" in done.stdout
