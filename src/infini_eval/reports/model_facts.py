"""What a run's manifest says about its model, with every field possibly missing; and how long its samples took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infini_eval.reports.model import Provenance, Summary, Timing, TokenSpeed, number, rounded
from infini_eval.results.reader import RunRecords

if TYPE_CHECKING:
    import numpy as np

UNKNOWN = "unknown model"
DEFAULT_SCORER = "exact_digits"  # of records that come without scores
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


def facts_of(summary: Summary) -> ModelFacts:
    """The facts that a summary's manifest says."""
    return model_facts(vars(summary.run))


def task_of(summary: Summary) -> str:
    """The task that a summary is about."""
    return facts_of(summary).task


def has_segments(summary: Summary) -> bool:
    """False for a model that has no segments; True also where nobody says."""
    return facts_of(summary).has_segments is not False


def memory_words(run: Provenance) -> str | None:
    """Planned beside measured memory of one rank, where the run's manifest has them."""
    memory = _mapping(_mapping(vars(run), "environment"), "memory")
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


def timing(records: RunRecords) -> Timing | None:
    """Sums over the cold and the warm samples; None where records do not say what was reused."""
    import numpy as np

    seconds, tokens, reused = (records.number(name) for name in ("seconds", "prompt_tokens", "reused_tokens"))
    known = ~np.isnan(seconds) & ~np.isnan(tokens) & ~np.isnan(reused)
    if not known.any():
        return None
    return Timing(
        cold=_sums(known & (reused == 0), seconds, tokens, reused),
        warm=_sums(known & (reused > 0), seconds, tokens, reused),
    )


def timing_line(measured: Timing | None) -> str | None:
    """The two speeds in words where something was reused, else None."""
    if measured is None or measured.warm is None:
        return None
    warm, cold = measured.warm, measured.cold
    words = f"{warm.samples} samples reused {warm.reused_tokens:,} of {warm.prompt_tokens:,} prompt tokens"
    speeds = f"computed tokens/s: {_speed(warm)} in these" + (
        f", {_speed(cold)} in {cold.samples} others" if cold else ""
    )
    return f"shared prefixes: {words}; {speeds}"


def _sums(chosen: np.ndarray, seconds: np.ndarray, tokens: np.ndarray, reused: np.ndarray) -> TokenSpeed | None:
    if not chosen.any():
        return None
    took, read, shared = (float(values[chosen].sum()) for values in (seconds, tokens, reused))
    speed = number((read - shared) / took) if took > 0 else None
    return TokenSpeed(int(chosen.sum()), int(read), int(shared), rounded(took), speed)


def _speed(sums: TokenSpeed) -> str:
    speed = sums.computed_tokens_per_second
    return "unknown" if speed is None else f"{speed:,.0f}"
