"""The README and its companions: every link leads somewhere, and every script their commands name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "examples/infinite-context-length/README.md")


def blocks(text: str) -> list[str]:
    return re.findall(r"^```[^\n]*\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


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
