"""Statistics of judged answers: pass@1 over questions, by group, and how far two judges agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from infini_eval.reports.statistics.intervals import Average, average_over

WIDTHS = (500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000)
MOST_BANDS = 6


@dataclass(frozen=True)
class Answer:
    """One judged answer: `value` 1 right, 0 wrong, None not judged."""

    question: str
    document_set: str | None
    value: float | None


@dataclass(frozen=True)
class Agreement:
    """Two judges on the same `n` answers: the share they agree on, and Cohen's kappa (None where it is not defined)."""

    n: int
    same: int
    both_right: int
    only_a: int
    only_b: int
    share: float | None
    kappa: float | None


def pass_at_1(answers: Sequence[Answer]) -> Average | None:
    """The mean over questions of each question's share of right repeats, with its 95 % interval; None without answers.

    Repeats of a question count once in the interval (Wilson over questions), and questions on the same documents are
    one cluster (see `average_over`), for neither vary independently.
    """
    import numpy as np

    by_question = question_means(answers)
    if not by_question:
        return None
    sets = {answer.question: answer.document_set for answer in answers if answer.value is not None}
    means = np.array(list(by_question.values()))
    known = None not in sets.values()
    cluster = np.unique([str(sets[name]) for name in by_question], return_inverse=True)[1] if known else None
    found = average_over(np.zeros(len(means), np.int64), means, cluster)
    method = found.method.replace("haystack", "document set").replace("every sample", "every question")
    return Average(found.value, found.low, found.high, method, found.clusters)


def bounds(answers: Sequence[Answer]) -> tuple[float, float]:
    """pass@1 if every answer without a value were wrong, and if every one were right: it lies between the two.

    Both are means over questions, as pass@1 is. A question's share of right repeats lies between its own bounds, and one
    without any value adds 0 to the lower mean and 1 to the upper.
    """
    ends = []
    for value in (0.0, 1.0):
        means = question_means([replace(one, value=value) if one.value is None else one for one in answers])
        ends.append(sum(means.values()) / len(means))
    return ends[0], ends[1]


def question_means(answers: Sequence[Answer]) -> dict[str, float]:
    """Each question's share of right answers among those that have a value."""
    values: dict[str, list[float]] = {}
    for answer in answers:
        if answer.value is not None:
            values.setdefault(answer.question, []).append(answer.value)
    return {question: sum(each) / len(each) for question, each in values.items()}


def agreement(a: Mapping[str, bool | None], b: Mapping[str, bool | None]) -> Agreement:
    """Compare two judges' verdicts by answer; those that one of them did not give are left out."""
    pairs = [(a[key], b[key]) for key in a if a[key] is not None and b.get(key) is not None]
    n = len(pairs)
    same = sum(x == y for x, y in pairs)
    both = sum(bool(x and y) for x, y in pairs)
    only_a, only_b = sum(bool(x and not y) for x, y in pairs), sum(bool(y and not x) for x, y in pairs)
    if not n:
        return Agreement(0, 0, 0, 0, 0, None, None)
    right_a, right_b = (both + only_a) / n, (both + only_b) / n
    chance = right_a * right_b + (1 - right_a) * (1 - right_b)
    kappa = None if chance == 1 else (same / n - chance) / (1 - chance)
    return Agreement(n, same, both, only_a, only_b, same / n, kappa)


def band_width(tokens: Sequence[int]) -> int:
    """The width of length bands that divides these prompts into at most six."""
    for width in WIDTHS:
        if max(tokens) // width - min(tokens) // width < MOST_BANDS:
            return width
    return max(tokens)


def band(tokens: int, width: int) -> str:
    """ "80k to 90k" for 83,000 tokens in bands of 10,000 (here k is 1,000)."""
    low = tokens // width * width
    return f"{_short(low)} to {_short(low + width)}"


def _short(tokens: int) -> str:
    return f"{tokens / 1000:g}k" if tokens >= 1000 else str(tokens)
