"""The published rules of long-context tasks: sets of nodes (GraphWalks), one label (BABILong), a text after its prefix (MRCR),
a letter (LongBench v2)."""

from __future__ import annotations

import json
import re

from infini_eval.api.scorer import scorer
from infini_eval.records import Sample, Score

FINAL = "Final Answer:"
_LISTED = re.compile(r"\[.*\]")


@scorer
def set_f1(generation: str, sample: Sample) -> Score:
    """set_f1 (GraphWalks): F1 of the nodes that the very last line lists after "Final Answer:" against the right ones.

    Order and repetition do not count. 0.0 where that line is not of the form; 1.0 where both sets are empty.
    """
    said = nodes_of(generation)
    if said is None:
        return Score(0.0)
    wanted = sample.columns.get("outputs", [])
    right = set(json.loads(wanted) if isinstance(wanted, str) else wanted)
    shared = len(said & right)
    value = 2 * shared / (len(said) + len(right)) if said or right else 1.0
    return Score(value, ", ".join(sorted(said)))


def nodes_of(generation: str) -> set[str] | None:
    """The nodes that the last line lists in brackets, None where it is not of the form."""
    last = generation.rpartition("\n")[2]
    listed = _LISTED.search(last) if FINAL in last else None
    if listed is None:
        return None
    return {name.strip() for name in listed.group().strip("[]").split(",") if name.strip()}
