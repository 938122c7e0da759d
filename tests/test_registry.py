"""The registry: a file's stem is its public name, an unknown name lists what exists, helper files are no names."""

from __future__ import annotations

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


def test_a_folder_counts_as_a_file_and_its_parts_bear_its_name() -> None:
    assert registry.load("tasks", "aa_lcr").name == "aa_lcr"
    assert registry.load("tasks", "aa-lcr-judge").name == "aa_lcr_judge"
    assert {"aa_lcr_data", "judge"}.isdisjoint(registry.names("tasks"))


def test_an_unknown_name_lists_what_exists() -> None:
    with pytest.raises(ConfigError, match=r"unknown scorer 'nearly'(.|\n)*contains, exact_digits"):
        registry.load("scorers", "nearly")


def test_dashes_and_underscores_are_alike() -> None:
    assert registry.load("scorers", "exact-digits") is registry.load("scorers", "exact_digits")
