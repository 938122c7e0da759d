"""How long samples took, those that were read whole apart from those that reused what another sample had computed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from infini_eval.reports.numbers import number

if TYPE_CHECKING:
    import numpy as np

    from infini_eval.results.reader import RunRecords


def timing(records: RunRecords) -> dict[str, Any] | None:
    """Sums over the cold and the warm samples; None where records do not say what was reused.

    Seconds are summed over samples, so that replicas count each their own. Only computed tokens make a speed.
    """
    import numpy as np

    seconds, tokens, reused = (records.number(name) for name in ("seconds", "prompt_tokens", "reused_tokens"))
    known = ~np.isnan(seconds) & ~np.isnan(tokens) & ~np.isnan(reused)
    if not known.any():
        return None
    return {
        "cold": _sums(known & (reused == 0), seconds, tokens, reused),
        "warm": _sums(known & (reused > 0), seconds, tokens, reused),
    }


def timing_line(found: dict[str, Any] | None) -> str | None:
    """The two speeds in words where something was reused, else None."""
    if not found or not found["warm"]:
        return None
    warm, cold = found["warm"], found["cold"]
    words = f"{warm['samples']} samples reused {warm['reused_tokens']:,} of {warm['prompt_tokens']:,} prompt tokens"
    speeds = f"computed tokens/s: {_speed(warm)} in these" + (
        f", {_speed(cold)} in {cold['samples']} others" if cold else ""
    )
    return f"shared prefixes: {words}; {speeds}"


def _sums(chosen: np.ndarray, seconds: np.ndarray, tokens: np.ndarray, reused: np.ndarray) -> dict[str, Any] | None:
    if not chosen.any():
        return None
    took, read, shared = (float(values[chosen].sum()) for values in (seconds, tokens, reused))
    return {
        "samples": int(chosen.sum()),
        "prompt_tokens": int(read),
        "reused_tokens": int(shared),
        "seconds": number(took),
        "computed_tokens_per_second": number((read - shared) / took) if took > 0 else None,
    }


def _speed(sums: dict[str, Any]) -> str:
    speed = sums["computed_tokens_per_second"]
    return "unknown" if speed is None else f"{speed:,.0f}"
