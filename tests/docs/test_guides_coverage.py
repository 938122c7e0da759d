"""docs/guides-coverage.md: the tests, files and flags that it names exist, and nothing stands there as missing."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/guides-coverage.md").read_text()
ROWS = [line for line in PAGE.splitlines() if line.startswith("|") and not line.startswith(("|---", "| item |"))]
FUNCTIONS = {
    name for path in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())
}


def test_the_tests_that_are_named_exist() -> None:
    named = set(re.findall(r"\btest_\w+\b(?!\.py)", PAGE))
    assert named
    assert not named - FUNCTIONS
    assert not [path for path in re.findall(r"tests/[\w/]+(?:\.py)?", PAGE) if not (ROOT / path).exists()]


def test_the_files_that_are_named_exist() -> None:
    linked = re.findall(r"\]\((\.\./[^)#]+|[\w-]+\.md)", PAGE)
    assert linked
    assert not [path for path in linked if not (ROOT / "docs" / path).exists()]


def test_every_row_has_item_command_and_result() -> None:
    cells = [re.split(r"(?<!\\)\|", row)[1:-1] for row in ROWS]
    assert not [row for row in cells if len(row) != 3]
    assert not [row for row in cells if not row[0].strip() or not (row[1].strip() or row[2].strip())]
    assert not [row for row in ROWS if re.search(r"\bmissing\b", row)]
