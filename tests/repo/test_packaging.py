"""Packaging: what the code imports is declared, and what is declared is pinned in constraints.txt."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DISTRIBUTION_OF = {
    "yaml": "pyyaml",
    "flash_attn": "flash-attn",
    "importlinter": "import-linter",
    "inspect_ai": "inspect-ai",
    "lm_eval": "lm-eval",
    "rouge_score": "rouge-score",
    "sentence_transformers": "sentence-transformers",
}
# Come with a declared dependency by that dependency's own promise: transformers and datasets need the first two, fastapi is
# made of the third, and inspect-ai's calls are of the fourth.
IMPLIED = {"huggingface_hub", "tqdm", "starlette", "anyio"}


def requirement_name(requirement: str) -> str:
    return re.split(r"[<>=!~; \[]", requirement, maxsplit=1)[0].lower()


def declared(extra: str | None = None) -> set[str]:
    requirements = PROJECT["dependencies"] if extra is None else PROJECT["optional-dependencies"][extra]
    return {requirement_name(requirement) for requirement in requirements}


def imported_by(folder: Path) -> set[str]:
    """Top-level names of absolute imports below a folder, those inside functions included."""
    names = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names.add((node.module or "").split(".")[0])
    return names - set(sys.stdlib_module_names) - {"infini_eval"}


def pins() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    return dict(re.fullmatch(r"([\w.-]+)==([\w.]+)", line).groups() for line in lines)


def test_every_import_is_declared():
    extras = set().union(*(declared(extra) for extra in PROJECT["optional-dependencies"]))
    package = ROOT / "src" / "infini_eval"
    missing = {DISTRIBUTION_OF.get(name, name) for name in imported_by(package) - IMPLIED} - declared() - extras
    assert not missing


def test_every_dependency_is_imported():
    names = imported_by(ROOT / "src") | imported_by(ROOT / "scripts")
    assert declared() <= {DISTRIBUTION_OF.get(name, name) for name in names}


@pytest.mark.parametrize("extra", [None, "tasks", "dev"])
def test_constraints_pin_every_direct_dependency(extra: str | None):
    assert declared(extra) <= set(pins())


def test_constraints_pin_nothing_else_and_no_build():
    assert set(pins()) == declared() | declared("tasks") | declared(
        "dev"
    )  # a local version such as 2.13.0+cpu would not have parsed


def test_every_extra_that_a_message_names_exists():
    source = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    named = set(re.findall(r"infini-eval\[(\w+)\]|\bextra=\"(?!forbid)(\w+)\"", source))  # "forbid" is pydantic's
    assert {extra or other for extra, other in named} <= set(PROJECT["optional-dependencies"])


def test_version_is_one():
    import infini_eval

    assert re.fullmatch(r"\d+\.\d+\.\d+", infini_eval.__version__)
    assert PROJECT["dynamic"] == ["version"]


@pytest.mark.parametrize("folder", ["llama4-scout", "aa-lcr"])
def test_the_requirements_of_an_example_name_extras_that_exist(folder: str):
    lines = (ROOT / "examples" / folder / "requirements.txt").read_text().splitlines()
    lines = [line for line in lines if line and not line.startswith("#")]
    (project,) = [line.removeprefix("-e ") for line in lines if line.startswith("-e ")]
    path, extras = re.fullmatch(r"(.+)\[(.+)\]", project).groups()
    assert (ROOT / "examples" / folder / path).resolve() == ROOT
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
    constraints = [line.removeprefix("-c ") for line in lines if line.startswith("-c ")]
    assert all((ROOT / "examples" / folder / file).is_file() for file in constraints)
    assert len(lines) == 1 + len(constraints)
