"""Failures and errors: the bounds that failed samples leave open, and of which kind the wrong answers are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from infini_eval.reports.statistics.intervals import Average, Proportion, average_over, proportions
from infini_eval.reports.statistics.samples import Scored, depth_groups

if TYPE_CHECKING:
    import numpy as np


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


@dataclass(frozen=True)
class Counted:
    """The samples of a run or of a part of it: `scored` those that were answered, `everything` the failed ones too.

    In `everything` a failed sample counts as wrong. Both are the same where none failed.
    """

    scored: Scored
    everything: Scored

    @property
    def failed(self) -> int:
        return len(self.everything) - len(self.scored)

    def by_length(self) -> dict[float | None, Counted]:
        """The samples of each labelled length, those included at which every sample failed."""
        import numpy as np

        everything = self.everything.by_length()
        if not self.failed:
            return {length: Counted(part, part) for length, part in everything.items()}
        scored, none = self.scored.by_length(), self.scored.take(np.zeros(0, np.int64))
        return {length: Counted(scored.get(length, none), part) for length, part in everything.items()}

    def is_failed(self) -> np.ndarray:
        """bool [samples of `everything`]."""
        import numpy as np

        if not self.failed:
            return np.zeros(len(self.everything), bool)
        return ~np.isin(self.everything.row, self.scored.row)


@dataclass(frozen=True)
class Bounds:
    """An average over depths with failed samples left out (None where nothing was answered), as wrong, and as right."""

    answered: Average | None
    as_wrong: Average
    as_right: Average

    @property
    def claim(self) -> Average:
        """What may be said whatever the failed samples would have answered: the lower average, the widest interval.

        The ends are those of two 95 % intervals, so that the interval covers every share of right answers among the
        failed samples (bounds without assumptions about what is missing, Manski 1990). Without failures this is the
        average itself.
        """
        return replace(self.as_wrong, low=self.as_wrong.low, high=self.as_right.high)


def bounds(counted: Counted) -> Bounds:
    """The average accuracy over depths in its three readings; `counted` holds at least one sample."""
    import numpy as np

    group = depth_groups(counted.everything)[1]
    wrong = average_over(group, counted.everything.correct, counted.everything.cluster)
    if not counted.failed:
        return Bounds(wrong, wrong, wrong)
    failed = counted.is_failed()
    right = average_over(group, np.where(failed, 1.0, counted.everything.correct), counted.everything.cluster)
    answered = None
    if len(counted.scored):
        own = np.unique(group[~failed], return_inverse=True)[1]
        answered = average_over(own, counted.scored.correct, counted.scored.cluster)
    return Bounds(answered, wrong, right)


@dataclass(frozen=True)
class DepthCell:
    """One depth: its answered samples, and how many more failed."""

    depth_percent: float
    answered: Proportion
    failed: int

    @property
    def accuracy_failed_as_wrong(self) -> float:
        return self.answered.correct / (self.answered.n + self.failed)


def cells(counted: Counted) -> tuple[list[DepthCell], bool]:
    """One cell a depth, ascending, and whether depths were rounded (see `depth_groups`)."""
    import numpy as np

    depths, group, rounded = depth_groups(counted.everything)
    failed = counted.is_failed()
    answered = proportions(group[~failed], counted.scored.correct, counted.scored.cluster, len(depths))
    missing = np.bincount(group[failed], minlength=len(depths))
    columns = zip(depths.tolist(), answered, missing.tolist(), strict=True)
    return [DepthCell(*column) for column in columns], rounded
