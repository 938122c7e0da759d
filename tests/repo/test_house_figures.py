"""scripts/house_figures.py: what is counted of files given as text."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("house_figures", ROOT / "scripts/house_figures.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["house_figures"] = module
    spec.loader.exec_module(module)
    return module


def test_figures(script: ModuleType) -> None:
    imports = "import os\nfrom sys import (\n    argv,\n)\n"
    found = script.figures([imports + "x = 1\n" * 6, "", "y = 2\n" * 20, "def f():\n    import re\n" + "\n" * 28])
    assert (found.files, found.lines, found.median) == (3, 60, 20)
    assert found.imports == pytest.approx(100 * 5 / 60)
    assert found.row("now") == "| now | 3 | 60 | 20 | 28 | 8.3 % |"


def test_the_working_tree_is_read(script: ModuleType) -> None:
    sources = script.sources_of(".")
    assert len(sources) > 100 and script.figures(sources).lines == sum(len(text.splitlines()) for text in sources)
