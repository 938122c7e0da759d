"""What kind of wrong a wrong answer is, as far as a record can tell (it holds an excerpt, never the whole prompt)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

KINDS = {
    "empty": "empty answer",
    "no_number": "text without a number",
    "shot_number": "the number of a worked example",
    "number_near_needle": "another number from the text around the needle",
    "number_in_prompt": "another number from elsewhere in the prompt",
    "cut_short": "the right digits, but too few",
    "digits_added": "the right digits and more behind them",
    "one_digit_missing": "one digit left out, the others right",
    "one_digit_extra": "one digit too many, the others right",
    "wrong_digits": "right length, wrong digits",
    "answer_later": "the answer stands later in the text, behind another number",
    "made_up": "a number that the prompt does not hold",
    "other_number": "another number (from elsewhere in the prompt, or made up: the record cannot tell)",
    "not_numeric": "the answer is not a number; kinds are not told apart",
}
_NUMBER = re.compile(r"\d+")
_MAX_TEXT = 10_000  # of a long generation only the start is looked at


@dataclass(frozen=True)
class ErrorBreakdown:
    """Counts of wrong answers by kind (keys of KINDS), and where the first wrong digit stands (1 is the first digit).

    `cut_by_limit` of the ones cut short had used up max_new_tokens. Breakdowns can be added up.
    """

    looked_at: int
    kinds: Counter[str]
    first_wrong_digit: Counter[int]
    cut_by_limit: int = 0

    def __add__(self, other: ErrorBreakdown) -> ErrorBreakdown:
        return ErrorBreakdown(
            self.looked_at + other.looked_at,
            self.kinds + other.kinds,
            self.first_wrong_digit + other.first_wrong_digit,
            self.cut_by_limit + other.cut_by_limit,
        )


def error_kind(answer: str, generation: str, excerpt: str | None, source: str | None = None) -> tuple[str, int | None]:
    """The kind of a wrong answer, and for `wrong_digits` the position of the first wrong digit.

    source: the record's `number_from`; None in records that do not say.
    """
    answer, generation = answer.strip(), generation[:_MAX_TEXT]
    if not generation.strip():
        return "empty", None
    if not answer.isdecimal():
        return "not_numeric", None
    numbers = _NUMBER.findall(generation)
    if not numbers:
        return "no_number", None
    if answer in numbers[1:]:
        return "answer_later", None
    return _number_kind(answer, numbers[0], excerpt or "", source)


def _number_kind(answer: str, given: str, excerpt: str, source: str | None) -> tuple[str, int | None]:
    """The kind of a wrong number; numbers of one or two digits stand everywhere and prove no source."""
    if source == "shot":
        return "shot_number", None
    if given in _NUMBER.findall(excerpt) and given != answer:
        return "number_near_needle", None
    if answer.startswith(given):
        return "cut_short", None
    if given.startswith(answer):
        return "digits_added", None
    if source == "prompt" and len(given) > 2:
        return "number_in_prompt", None
    if _without_one(answer, given):
        return "one_digit_missing", None
    if _without_one(given, answer):
        return "one_digit_extra", None
    if len(given) == len(answer):
        return "wrong_digits", next(
            i for i, pair in enumerate(zip(given, answer, strict=True), 1) if pair[0] != pair[1]
        )
    return "made_up" if source == "nowhere" else "other_number", None


def _without_one(longer: str, shorter: str) -> bool:
    """Whether one digit less makes `longer` the other."""
    if len(longer) != len(shorter) + 1 or len(shorter) < 2:
        return False
    return any(longer[:place] + longer[place + 1 :] == shorter for place in range(len(longer)))


def breakdown(samples: Sequence[Sequence[str | None]]) -> ErrorBreakdown:
    """Classify (answer, generation, excerpt, finish reason, number_from) of wrong samples."""
    kinds: Counter[str] = Counter()
    positions: Counter[int] = Counter()
    cut_by_limit = 0
    for answer, generation, excerpt, finish, source in samples:
        kind, position = error_kind(answer or "", generation or "", excerpt, source)
        kinds[kind] += 1
        cut_by_limit += kind == "cut_short" and finish == "length"
        if position is not None:
            positions[position] += 1
    return ErrorBreakdown(len(samples), kinds, positions, cut_by_limit)
