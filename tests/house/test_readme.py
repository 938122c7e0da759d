"""The README: every file it names exists, its commands start something real, and its tree has one line a file.

The tree is the code block whose first line is `src/infini_eval/`. A line is a path, then two or more blanks and what
it is (the latter may be missing); two more blanks at its start put it inside the folder above; a folder ends in `/`.
Several files may share a line, separated by one blank each.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TREE_ROOT = "src/infini_eval/"
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "examples/infinite-context-length/README.md")


def blocks(text: str) -> list[str]:
    return re.findall(r"^```[^\n]*\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def tree_block() -> str:
    trees = [block for block in blocks((ROOT / "README.md").read_text()) if block.startswith(TREE_ROOT)]
    assert len(trees) == 1, f"README.md needs one code block that starts with {TREE_ROOT}"
    return trees[0]


def tree_paths(block: str) -> list[str]:
    """The paths a tree names, relative to the repository's root."""
    folders: list[tuple[int, str]] = []
    paths = []
    for line in block.splitlines():
        names = re.split(r"\s{2,}", line.strip(), maxsplit=1)[0]
        depth = len(line) - len(line.lstrip())
        folders = [(level, folder) for level, folder in folders if level < depth]
        parent = folders[-1][1] if folders else ""
        for name in names.split():
            paths.append(parent + name)
            if name.endswith("/"):
                folders.append((depth, parent + name))
    return paths


def test_tree_names_only_what_exists():
    assert not [path for path in tree_paths(tree_block()) if not (ROOT / path).exists()]


def test_tree_names_every_source_file():
    source = ROOT / TREE_ROOT
    files = {path.relative_to(ROOT).as_posix() for path in source.rglob("*.py") if path.name != "__init__.py"}
    assert not files - set(tree_paths(tree_block()))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str):
    path = ROOT / document
    targets = re.findall(r"\]\((?!https?://|mailto:|#)([^)#\s]+)", path.read_text())
    assert not [target for target in targets if not (path.parent / target).exists()]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_scripts_in_commands_exist(document: str):
    commands = "\n".join(blocks((ROOT / document).read_text()))
    scripts = re.findall(r"(?<![\w/.])(?:\./)?((?:scripts|examples|benchmarks|\.ci)/[\w./-]+?\.(?:py|sh))\b", commands)
    assert not [script for script in scripts if not (ROOT / script).exists()]


def test_parser_of_the_tree():
    lines = ("src/infini_eval/", "  cli/   commands", "    main.py   starts", "  config.py errors.py   two", "setup.py")
    assert tree_paths("\n".join(lines)) == [
        "src/infini_eval/",
        "src/infini_eval/cli/",
        "src/infini_eval/cli/main.py",
        "src/infini_eval/config.py",
        "src/infini_eval/errors.py",
        "setup.py",
    ]
