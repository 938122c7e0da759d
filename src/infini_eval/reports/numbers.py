"""Numbers as summary.json shows them."""

from __future__ import annotations


def number(value: float | None, digits: int = 6) -> float | int | None:
    """Whole numbers without a point, others rounded; None stays None, NaN becomes None."""
    if value is None or value != value:
        return None
    value = round(float(value), digits)
    return int(value) if value.is_integer() else value
