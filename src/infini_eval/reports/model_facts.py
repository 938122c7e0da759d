"""What a run's manifest says about its model and settings, with every field possibly missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

UNKNOWN = "unknown model"
PASSKEY = "passkey"  # also the task of records that do not say theirs


@dataclass(frozen=True)
class ModelFacts:
    """`segment_length` is None for a model without segments (`has_segments` False) and where nobody says (None)."""

    name: str
    segment_length: int | None
    has_segments: bool | None
    memory: str | None
    task: str
    scorer: str | None

    def segments(self, tokens: float | None) -> float | None:
        """How many segments so many tokens fill (at least 1); 1 without segments, None where unknown."""
        if self.has_segments is False:
            return 1.0
        if not self.segment_length or not tokens:
            return None
        return max(1.0, tokens / self.segment_length)


def model_facts(manifest: Mapping[str, Any] | None) -> ModelFacts:
    """From manifest.json's content, or from None where there is no manifest."""
    model = _mapping(manifest, "model")
    identity = _mapping(manifest, "identity")
    length = model.get("segment_length")
    length = length if isinstance(length, int) and length > 0 else None
    return ModelFacts(
        name=one_line(str(model.get("name") or UNKNOWN)),
        segment_length=length,
        has_segments=True if length else False if "segment_length" in model else None,
        memory=model.get("memory"),
        task=one_line(str(identity.get("task") or PASSKEY)),
        scorer=identity.get("scorer"),
    )


def task_of(summary: Mapping[str, Any]) -> str:
    """The task that a summary is about."""
    return model_facts(summary["run"]).task


def has_segments(summary: Mapping[str, Any]) -> bool:
    """False for a model that has no segments; True also where nobody says."""
    return model_facts(summary["run"]).has_segments is not False


def memory_words(summary: Mapping[str, Any]) -> str | None:
    """Planned beside measured memory of one rank, where the run's manifest has them."""
    memory = _mapping(_mapping(summary.get("run"), "environment"), "memory")
    planned, measured = memory.get("planned_bytes"), memory.get("measured_bytes")
    if not isinstance(measured, int):
        return None
    words = f"{planned / 1e6:,.1f} MB planned" if isinstance(planned, int) else "not planned"
    return f"{words}, {measured / 1e6:,.1f} MB measured"


def one_line(text: str, limit: int = 200) -> str:
    """Foreign text for a line of a report: control characters become spaces, long text is cut."""
    clean = "".join(c if c.isprintable() else " " for c in text[: limit + 1])
    return clean if len(clean) <= limit else clean[:limit] + "..."


def _mapping(manifest: Mapping[str, Any] | None, name: str) -> Mapping[str, Any]:
    value = (manifest or {}).get(name)
    return value if isinstance(value, Mapping) else {}
