"""The depth that a sample is grouped by: its label where the needle really stands there, else where it stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from infini_eval.results.reader import RunRecords

TOLERANCE = 5.0  # percent points: about the step of the usual grids


def depths_to_group_by(records: RunRecords) -> np.ndarray:
    """Percent, float64 [rows]: the label, or the real depth rounded to 5 % where the label is more than 5 points off.

    Data that do not say the real depth (column `real_depth`) are grouped by label. NaN where there is no label.
    """
    import numpy as np

    label, real = records.number("depth_percent"), records.number("real_depth")
    return np.where(_off(label, real), np.round(real / 5) * 5, label)


def label_warning(records: RunRecords, row: np.ndarray) -> str | None:
    """What to say about these rows where labels are more than 5 points off; None where all are right or unknown."""
    import numpy as np

    label, real = records.number("depth_percent")[row], records.number("real_depth")[row]
    off = _off(label, real)
    if not off.any():
        return None
    worst = int(np.nanargmax(np.where(off, np.abs(label - real), np.nan)))
    return (
        f"{int(off.sum())} of {len(row)} depth labels are more than {TOLERANCE:g} points off (at worst {label[worst]:g} % "
        f"says the label, {real[worst]:.1f} % it is): these samples are grouped by their real depth"
    )


def _off(label: np.ndarray, real: np.ndarray) -> np.ndarray:
    import numpy as np

    with np.errstate(invalid="ignore"):
        return (real >= 0) & (real <= 100) & (np.abs(label - real) > TOLERANCE)
