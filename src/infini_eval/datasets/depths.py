"""Depth schedules: evenly spaced, or denser at both ends (sigmoid)."""

from __future__ import annotations

import math
from typing import Literal


def spaced(number: int, kind: Literal["linear", "sigmoid"] | str) -> tuple[float, ...]:
    """`number` depths from 0 to 100 percent, both included; "sigmoid" lies denser at both ends (slope 0.1)."""
    even = [100 * i / (number - 1) for i in range(number)]
    if kind == "linear":
        return tuple(round(depth, 3) for depth in even)
    curved = [100 / (1 + math.exp(-0.1 * (depth - 50))) for depth in even]
    return (0.0, *(round(depth, 3) for depth in curved[1:-1]), 100.0)
