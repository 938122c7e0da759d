"""What the scorers of several references share: the references of a sample, and RULER's clean-up of a prediction."""

from __future__ import annotations

import json
import re

from infini_eval.records import Sample

_CONTROL = re.compile(r"[\x00-\x1f]")


def references(sample: Sample) -> tuple[str, ...]:
    """The strings that an answer must name: the column `outputs` (a JSON list or a list), else the answer alone."""
    outputs = sample.columns.get("outputs")
    if isinstance(outputs, str):
        outputs = json.loads(outputs) if outputs.startswith("[") else [outputs]
    return tuple(str(output) for output in outputs) if outputs else (sample.answer,)


def cleaned(generation: str) -> str:
    """A prediction as RULER reads it: control characters become newlines, white space around it goes."""
    return _CONTROL.sub("\n", generation).strip()
