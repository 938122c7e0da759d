"""The registry: a file's stem is its public name, an unknown name lists what exists, helper files are no names."""

from __future__ import annotations

from pathlib import Path

import pytest

from infini_eval import registry
from infini_eval.errors import ConfigError


def test_names_are_the_files_that_define_one() -> None:
    assert {"exact_digits", "contains"} <= set(registry.names("scorers"))
    assert {"passkey", "needle"} <= set(registry.names("tasks"))
    assert {"nanotron", "fake"} <= set(registry.names("backends"))
    assert "numbers" not in registry.names("reports") and "html" in registry.names("reports")


@pytest.mark.parametrize("kind", ["tasks", "scorers"])
def test_every_name_loads(kind: str) -> None:
    for name in registry.names(kind):
        assert registry.load(kind, name) is not None


def test_an_unknown_name_lists_what_exists() -> None:
    with pytest.raises(ConfigError, match=r"unknown scorer 'nearly'(.|\n)*contains, exact_digits"):
        registry.load("scorers", "nearly")


def test_dashes_and_underscores_are_alike() -> None:
    assert registry.load("scorers", "exact-digits") is registry.load("scorers", "exact_digits")


def test_one_file_may_hold_several_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ruler_niah_single_1", "ruler_qa", "ruler_vt"):
        assert registry.load("tasks", name).name == name
    assert "ruler" not in registry.names("tasks") and "ruler_lists" not in registry.names("tasks")
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "family.py").write_text('TASKS: dict[str, int] = {\n    "one": 1,\n    "two": 2,\n}\n')
    (tmp_path / "tasks" / "single.py").write_text("TASK = 3\n")
    (tmp_path / "tasks" / "part.py").write_text('OTHER_TASKS = {"three": 3}\n')
    monkeypatch.setattr(registry, "__file__", str(tmp_path / "registry.py"))
    assert registry.names("tasks") == ["one", "single", "two"]
