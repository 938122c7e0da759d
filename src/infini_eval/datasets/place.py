"""Where a needle may stand: in a chosen segment, or at a segment border."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from infini_eval.datasets.compose import Allowed
from infini_eval.datasets.config import ResolvedConfig
from infini_eval.errors import ConfigError

BORDER_SLACK = 8  # "before" and "after" a border: at most this many tokens of haystack between border and needle
DEEPEST = 99.0  # a needle that is moved to a place starts from a depth inside the haystack

Tokens = NDArray[np.int64]


def start_depth(config: ResolvedConfig, depth: float, target: int) -> float:
    """The depth to look from: the middle of the asked segment, or the asked depth."""
    if config.needle_segment is not None and config.segment_length:
        middle = (config.needle_segment + 0.5) * config.segment_length
        return min(DEEPEST, 100 * middle / target)
    return min(depth, DEEPEST) if config.boundary else depth


def allowed_places(config: ResolvedConfig) -> Allowed | None:
    """The test of a needle's token span, from `needle_segment` and `boundary`; None where any place will do.

    With a segment and "straddle", the needle ends in that segment and begins in the one before.
    """
    if config.needle_segment is None and config.boundary is None:
        return None
    length, segment = config.segment_length, config.needle_segment
    if length is None:
        raise ConfigError(
            "--needle-segment and --boundary need the model's segment length", next_step="pass --segment-length L"
        )

    def allowed(start: Tokens, end: Tokens) -> NDArray[np.bool_]:
        first, last = start // length, (end - 1) // length
        good = (first != last) if config.boundary == "straddle" else (first == last)
        if config.boundary == "before":
            good = good & (-end % length < BORDER_SLACK)
        if config.boundary == "after":
            good = good & (start % length < BORDER_SLACK)
        return good if segment is None else good & (last == segment)

    return allowed
