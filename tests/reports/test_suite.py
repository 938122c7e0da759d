"""The average over a suite's tasks and its interval, on scores worked out by hand and by simulation."""

from __future__ import annotations

import random

import pytest

from infini_eval.reports.statistics.intervals import Average, wilson
from infini_eval.reports.suite import Percent, SuiteLength, SuiteTable, TaskScore, average_of_tasks, render


def wilson_score(right: int, n: int) -> Average:
    return Average(right / n, *wilson(right, n), "Wilson")


def test_one_task_is_its_own_average() -> None:
    one = wilson_score(7, 10)
    found = average_of_tasks([one])
    assert (found.value, found.low, found.high) == pytest.approx((one.value, one.low, one.high))


def test_distances_to_the_bounds_add_up_as_squares() -> None:
    found = average_of_tasks([Average(0.5, 0.2, 0.9, ""), Average(0.7, 0.3, 1.0, "")])
    assert found.value == pytest.approx(0.6)
    assert found.low == pytest.approx(0.6 - (0.3**2 + 0.4**2) ** 0.5 / 2)
    assert found.high == pytest.approx(0.6 + (0.4**2 + 0.3**2) ** 0.5 / 2)


@pytest.mark.parametrize("n", [10, 50])
def test_the_interval_covers_the_true_average(n: int) -> None:
    rng = random.Random(n)
    true = [rng.choice((0.0, 0.3, 0.8, 0.97, 1.0)) for _ in range(13)]
    hits = 0
    for _ in range(400):
        found = average_of_tasks([wilson_score(sum(rng.random() < p for _ in range(n)), n) for p in true])
        hits += found.low <= sum(true) / 13 <= found.high
    assert hits / 400 >= 0.93


def test_failed_samples_lower_what_is_counted_as_wrong() -> None:
    cell = TaskScore(Average(0.8, 0.5, 0.9, ""), samples=10, failed=10)
    assert cell.with_failed_as_wrong == pytest.approx(0.4) and TaskScore(None, 0, 4).to_json()["score"] is None


def test_the_table_marks_what_failed_and_what_is_missing() -> None:
    cells = {"one": TaskScore(Average(0.8, 0.5, 0.9, ""), 10, 10), "two": TaskScore(None, 0, 4)}
    average = Percent(80.0, 50.0, 90.0, "")
    length = SuiteLength(4096, cells, average, 20.0, averaged_tasks=1, complete=False, failed=14)
    text = render(SuiteTable("x", ("one", "two", "three"), ("three",), False, (length,)))
    lines = {line.split()[0]: line.split()[-1] for line in text.splitlines()}
    assert (lines["one"], lines["two"], lines["three"]) == ("80.0*", "-*", "-")
    assert "14 sample(s) failed (*); counted as wrong, the average is 20.0" in text and "No run of: three" in text
