"""Looks at a passkey data set before a model is loaded: needles, leaks, reused keys, duplicate ids."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from infini_eval.api.task import DataFinding
from infini_eval.datasets.depths import OFF_POINTS, is_off
from infini_eval.datasets.needle_position import (
    find_passkey,
    passkey_depth,
    question_start,
    stands_alone,
    whole_word_starts,
)
from infini_eval.datasets.passkey_text import NEEDLE_SENTENCES, QUESTION, SHOT_KINDS
from infini_eval.records import Sample

EXAMPLES_KEPT = 5

MESSAGES = {
    "missing_needle": "the prompt does not hold the answer: nothing to retrieve",
    "repeated_needle": "the needle stands in the prompt more than once",
    "answer_leaked": "the answer stands again after the needle: it can be copied from there",
    "answer_after_question": "the answer follows the question: these are training data (made with --is_eval no)",
    "shot_key_reused": "the needle's key is also the key of a worked example",
    "duplicate_id": "the id occurs more than once",
    "wrong_length": "the prompt does not have the tokens that the data say (token_count or num_tokens)",
    "non_numeric_answer": "the answer is not a number",
    "off_label": f"the needle's real depth is more than {OFF_POINTS:g} points from depth_percent",
}
_SHOT_KEY = re.compile("|".join(re.escape(f"The {kind.name} is ") + r"(\d+)" for kind in SHOT_KINDS))


def validate(samples: Sequence[Sample]) -> list[DataFinding]:
    """The defects of a passkey data set, one finding a kind, in the order of MESSAGES; an empty list when clean."""
    ids: dict[str, list[str]] = defaultdict(list)
    for sample in samples:
        for kind in _defects(sample):
            ids[kind].append(sample.id)
    ids["duplicate_id"] = duplicates(sample.id for sample in samples)
    return findings(ids)


def off_labels(samples: Sequence[Sample]) -> list[DataFinding]:
    """The samples whose needle stands far from its depth label: no defect, but no measure at that depth either."""
    return findings({"off_label": [s.id for s in samples if is_off_label(s.depth_percent, _with_real_depth(s))]})


def is_off_label(label: float, columns: Mapping[str, Any]) -> bool:
    """Whether the row's `real_depth` is far from its label; never where there is none, no needle, or several answers.

    Several answers (the column `outputs`) stand at depths of their own.
    """
    real = columns.get("real_depth")
    if not isinstance(real, (int, float)) or columns.get("control") == "no-context":
        return False
    return _answers(columns) < 2 and is_off(label, float(real))


def _with_real_depth(sample: Sample) -> Mapping[str, Any]:
    """The columns with a real depth, where the data or the passkey's wording tell it."""
    if "real_depth" in sample.columns:
        return sample.columns
    return {**sample.columns, "real_depth": passkey_depth(sample.prompt, sample.answer)}


def _answers(columns: Mapping[str, Any]) -> int:
    outputs = columns.get("outputs")
    if isinstance(outputs, str) and outputs.startswith("["):
        outputs = json.loads(outputs)
    return len(outputs) if isinstance(outputs, list) else 1


def findings(ids_by_kind: dict[str, list[str]]) -> list[DataFinding]:
    """Findings for the kinds that occurred, in the order of MESSAGES."""
    return [
        DataFinding(kind, len(ids), tuple(dict.fromkeys(ids))[:EXAMPLES_KEPT], message)
        for kind, message in MESSAGES.items()
        if (ids := ids_by_kind.get(kind, []))
    ]


def duplicates(ids: Iterable[str]) -> list[str]:
    """Each id that occurs more than once, as often as it occurs beyond the first time."""
    return [name for name, n in Counter(ids).items() for _ in range(n - 1)]


def _defects(sample: Sample) -> list[str]:
    prompt, answer = sample.prompt, sample.answer.strip()
    if sample.columns.get("control") == "no-context":
        return []  # the control has no needle on purpose
    if not answer.isdecimal():
        return ["non_numeric_answer"]
    span = find_passkey(prompt, answer)
    if span is None:
        return ["missing_needle"]
    found = []
    if prompt.count(NEEDLE_SENTENCES.format(key=answer)) > 1:
        found.append("repeated_needle")
    question = question_start(prompt)
    if answer_follows_question(prompt, answer):
        found.append("answer_after_question")
    if any(span[1] <= start < question for start in whole_word_starts(prompt, answer)) and not found:
        found.append("answer_leaked")
    if answer in shot_keys(prompt[: span[0]]):
        found.append("shot_key_reused")
    return found


def answer_follows_question(prompt: str, answer: str) -> bool:
    """True when the text after the final question begins with the answer."""
    tail = prompt[question_start(prompt) + len(QUESTION.rstrip()) :].lstrip()
    return bool(tail) and tail.startswith(answer) and stands_alone(tail, 0, len(answer))


def shot_keys(text: str) -> set[str]:
    """The keys of the worked examples in a text, found by their wording."""
    return {key for match in _SHOT_KEY.finditer(text) for key in match.groups() if key}
