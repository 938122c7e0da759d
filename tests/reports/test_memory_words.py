"""Planned beside measured memory in reports: said where the manifest has it, silent where it has not."""

from __future__ import annotations

from typing import Any

import pytest

from infini_eval.reports.model import Provenance
from infini_eval.reports.model_facts import memory_words


def provenance(environment: object) -> Provenance:
    return Provenance("run", (), identity=None, model=None, environment=environment)


@pytest.mark.parametrize(
    ("memory", "words"),
    [
        ({"planned_bytes": 45_600_000, "measured_bytes": 35_100_000}, "45.6 MB planned, 35.1 MB measured"),
        ({"measured_bytes": 35_100_000}, "not planned, 35.1 MB measured"),
        ({"planned_bytes": 45_600_000}, None),  # stopped before the last answer
        (None, None),
        ("foreign", None),
    ],
)
def test_words(memory: Any, words: str | None):
    assert memory_words(provenance({"memory": memory})) == words
    assert memory_words(provenance(None)) is None
