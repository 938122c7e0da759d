"""The documentation's commands work: each page's bash and python blocks run in order, in a folder of the page's own.

A block that cannot run here says why in the line before it: `<!-- not run: REASON -->`. Paths are those of a checkout's
root: the folder has links to the checkout's folders and to the files beside the page; what blocks write stays in it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]
)
PAGES = [page for page in PAGES if "_build" not in page.parts]
FOLDERS = ("benchmarks", "checkpoints", "configs", "docs", "examples", "scripts", "src", "tests")
RUN = ("bash", "python")
SHOWN = ("text", "toml", "yaml", "json")
FENCE = re.compile(r"^(\s*)(```+)(.*)$")
NOT_RUN = re.compile(r"^\s*<!-- not run:(.*?)-->\s*$")
LIMIT_S = 500  # a machine under load is slow; idle, no page takes more than a minute


@dataclass(frozen=True)
class Block:
    """A fenced block. line: of its fence, from 1. reason: why it is not run; None where it is."""

    page: Path
    line: int
    language: str
    code: str
    reason: str | None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT).as_posix()}:{self.line}"


def blocks(page: Path, text: str) -> Iterator[Block]:
    """Every fenced block of a page, in order."""
    lines = text.splitlines()
    reason: str | None = None
    at = 0
    while at < len(lines):
        fence = FENCE.match(lines[at])
        if fence:
            start, indent, ticks = at, fence[1], fence[2]
            at += 1
            while at < len(lines) and lines[at].strip() != ticks:
                at += 1
            code = "\n".join(line.removeprefix(indent) for line in lines[start + 1 : at])
            yield Block(page, start + 1, fence[3].strip(), code, reason)
            reason = None
        elif lines[at].strip():
            comment = NOT_RUN.match(lines[at])
            reason = comment[1].strip() if comment else None
        at += 1


BLOCKS = {page: list(blocks(page, page.read_text())) for page in PAGES}
RUNNABLE = [page for page in PAGES if any(one.language in RUN and one.reason is None for one in BLOCKS[page])]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.fixture
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Where a page's blocks run."""
    for name in FOLDERS:
        (tmp_path / name).symlink_to(ROOT / name)
    page: Path = request.getfixturevalue("page")
    for file in page.parent.iterdir():
        if file.is_file() and not (tmp_path / file.name).exists():
            (tmp_path / file.name).symlink_to(file)
    return tmp_path


def environment() -> dict[str, str]:
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONWARNINGS": "ignore",
    }


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_S + 60)
@pytest.mark.parametrize("page", RUNNABLE, ids=name_of)
def test_blocks_run(page: Path, folder: Path) -> None:
    for block in BLOCKS[page]:
        if block.language not in RUN or block.reason is not None:
            continue
        command = ["bash", "-euo", "pipefail"] if block.language == "bash" else [sys.executable]
        done = subprocess.run(
            [*command, "-c", block.code], cwd=folder, env=environment(), capture_output=True, text=True, timeout=LIMIT_S
        )
        assert done.returncode == 0, f"{block} ends with {done.returncode}\n{block.code}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_is_not_run_says_why(page: Path) -> None:
    assert not [str(block) for block in BLOCKS[page] if block.reason == ""]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_blocks_name_their_language(page: Path) -> None:
    known = {*RUN, *SHOWN}
    assert not [str(one) for one in BLOCKS[page] if one.language not in known and not one.language.startswith("{")]


def test_blocks_are_found_with_their_reasons() -> None:
    text = "```bash\na\n```\n\n<!-- not run: a GPU -->\n\n```python\nb\n```\n<!-- not run: -->\n```bash\nc\n```\n"
    found = list(blocks(ROOT / "page.md", text))
    assert [(one.language, one.code, one.reason) for one in found] == [
        ("bash", "a", None),
        ("python", "b", "a GPU"),
        ("bash", "c", ""),
    ]
    text = "<!-- not run: far away -->\nA sentence.\n```bash\nd\n```\n"
    assert [one.reason for one in blocks(ROOT / "page.md", text)] == [None], "the reason stands right before its block"
