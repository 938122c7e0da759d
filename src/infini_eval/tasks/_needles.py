"""What the needle tasks share: finding their needles again, and checking them, from the column `needles`."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence

from infini_eval.api.task import DataFinding, Span
from infini_eval.data.passkey import duplicates, findings
from infini_eval.errors import ConfigError
from infini_eval.records import Sample


def needle_texts(sample: Sample) -> list[str]:
    """The needles' words as the generator wrote them down; empty where the data have no such column."""
    value = sample.columns.get("needles")
    if isinstance(value, str):
        value = json.loads(value)
    return [str(needle) for needle in value or ()]


def locate(sample: Sample) -> Span | None:
    """The span of the first needle; without the column, the last place where the answer stands before the end."""
    needles = needle_texts(sample)
    if not needles and "needles" in sample.columns:
        return None
    wanted = needles[0] if needles else sample.answer
    start = sample.prompt.find(wanted) if needles else sample.prompt.rfind(wanted)
    return (start, start + len(wanted)) if wanted and start >= 0 else None


def validate(samples: Sequence[Sample]) -> list[DataFinding]:
    """Needles that are missing or stand in the prompt more than once, and ids that repeat."""
    ids: dict[str, list[str]] = defaultdict(list)
    for sample in samples:
        if sample.columns.get("control") == "no-context":
            continue
        counts = [sample.prompt.count(needle) for needle in needle_texts(sample)]
        unmarked = "needles" not in sample.columns
        if 0 in counts or (unmarked and locate(sample) is None):
            ids["missing_needle"].append(sample.id)
        if any(count > 1 for count in counts):
            ids["repeated_needle"].append(sample.id)
    ids["duplicate_id"] = duplicates(sample.id for sample in samples)
    return findings(ids)


def own_words(options: Mapping[str, str], usual: Mapping[str, str]) -> tuple[str, str, str]:
    """Needle, question and expected answer. Who brings a needle brings the question; expected is then its words."""
    needle, question, expected = (options[name] for name in ("needle", "question", "expected"))
    own = needle != usual["needle"]
    if own and question == usual["question"]:
        raise ConfigError(
            "--option needle=… needs a question of its own", next_step="pass --option question=… (and expected=…) too"
        )
    if own and expected == usual["expected"]:
        expected = needle.strip().rstrip(".!?")
    return sentence(needle), question, expected


def sentence(text: str) -> str:
    """A needle's text with a full stop, as it is put after a sentence of the haystack."""
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else text + "."


def spread(number: int, depth: float) -> list[float]:
    """Depths of several needles: the first at `depth`, the others evenly over 0..100, in the order of the needles."""
    return [(depth + 100 * i / number) % 100 if i else depth for i in range(number)]
