"""The registry: every task, scorer, backend and report has one public name; an unknown one lists what exists."""

from __future__ import annotations

import pytest

from infini_eval.api import registry
from infini_eval.api.backend import LazyBackend
from infini_eval.errors import ConfigError


def test_what_ships_has_its_names() -> None:
    assert {"exact_digits", "contains"} <= set(registry.names("scorers"))
    assert {"passkey", "needle"} <= set(registry.names("tasks"))
    assert {"nanotron", "fake"} <= set(registry.names("backends"))
    assert {"summary", "text", "html", "heatmap"} <= set(registry.names("reports"))
    assert not {name for name in registry.names("backends") if name.startswith("_")}


@pytest.mark.parametrize("kind", ["tasks", "scorers", "reports"])
def test_every_name_loads(kind: str) -> None:
    for name in registry.names(kind):
        assert registry.load(kind, name) is not None


def test_what_command_lines_are_told_of_backends_is_true() -> None:
    for name in ("nanotron", "transformers", "vllm", "openai", "gemini", "fake"):
        face, backend = registry.backend_face(name), registry.load("backends", name)
        assert isinstance(face, LazyBackend)
        assert (face.settings, face.computes_here, face.attention, face.stops_early) == (
            backend.settings,
            backend.computes_here,
            backend.attention,
            backend.stops_early,
        )


def test_a_near_miss_is_suggested() -> None:
    with pytest.raises(ConfigError, match="did you mean passkey"):
        registry.task("paskey")


def test_an_unknown_name_lists_what_exists() -> None:
    with pytest.raises(ConfigError, match=r"unknown scorer 'nearly'(.|\n)*contains, exact_digits"):
        registry.load("scorers", "nearly")


def test_dashes_and_underscores_are_alike() -> None:
    assert registry.load("scorers", "exact-digits") is registry.load("scorers", "exact_digits")
