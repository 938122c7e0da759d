"""docs/architecture.md says what is there: every folder, the import law of pyproject.toml, the first files to read."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
PACKAGE = ROOT / "src" / "infini_eval"


def section(title: str) -> str:
    return re.split(r"^## ", PAGE.partition(f"## {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def law() -> list[set[str]]:
    """The rows of pyproject.toml, from the top."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    rows = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [{name.strip(" ()") for name in row.split("|")} for row in rows]


def test_the_law_is_that_of_the_checks() -> None:
    block = re.search(r"```text\n(.*?)```", section("The import law"), re.DOTALL)
    assert block is not None
    assert [set(line.split()) for line in block[1].splitlines()] == law()


def test_every_folder_has_its_line() -> None:
    named = re.findall(r"^\| `(\w+)` \|", section("Folders"), re.MULTILINE)
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert set(named) == folders | {"library"}
    assert len(named) == len(set(named))
    places = {name: number for number, row in enumerate(law()) for name in row}
    assert [places[name] for name in named if name != "testing"] == sorted(
        places[name] for name in named if name != "testing"
    )


def test_what_must_start_fast_is_named() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    sources = next(contract["source_modules"] for contract in contracts if contract["type"] == "forbidden")
    line = re.search(r"^`([\w ]+)` do not name torch", section("The import law"), re.MULTILINE)
    assert line is not None
    assert set(line[1].split()) == {source.removeprefix("infini_eval.") for source in sources}


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\((?!https?://|#)([^)#\s]+)", PAGE)
    assert not [target for target in targets if not (ROOT / "docs" / target).exists()]
