"""Verdict rules: each class needs its evidence, and the control comes first."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from infini_eval.diagnosis.verdict import LABELS, Control, Evidence, Interval, Share, judge, silent, tells


def interval(low: float, high: float) -> Interval:
    return Interval((low + high) / 2, low, high, 9)


STRONG, NOTHING, BROAD = interval(3, 5), interval(-0.2, 0.2), interval(-2, 4)
TOLD, CHANCE, UNSURE, NONE = interval(0.9, 1), interval(0.4, 0.6), interval(0.5, 0.9), Interval.of([])
PASSES = Control(Share(9, 9), Share(0, 0))
UNMENDED = {name: Share(0, 9) for name in ("fresh", "opened", "own keys", "closed")}
RATES = {"told_written": TOLD, "told_held": TOLD, "told_asked": TOLD, "told_dead": NONE, "told_closed": NONE}


def case(**found: Interval) -> Evidence:
    """Evidence of a token that is written, held and read, and of no use, except for what is given."""
    logits = dict.fromkeys((field.name for field in fields(Evidence)), NOTHING)
    return Evidence(**{**logits, **RATES, **found})


def label(evidence: Evidence | None, control: Control = PASSES, wrong: int = 9, **mended: int) -> str:
    changes = UNMENDED | {name.replace("_", " "): Share(right, 9) for name, right in mended.items()}
    return judge(evidence, 3, wrong, control, changes).label


SILENT = dict.fromkeys(("told_written", "told_held", "told_asked"), CHANCE)
CASES = {
    "never_written": case(**SILENT),
    "overwritten": case(told_held=CHANCE, told_asked=CHANCE),
    "not_read": case(overturns=STRONG),
    "read_but_not_used": case(told_dead=TOLD),
    "undecided": case(),
}


@pytest.mark.parametrize("expected", CASES)
def test_each_class_needs_its_evidence(expected: str) -> None:
    assert label(CASES[expected]) == expected


@pytest.mark.parametrize("expected", CASES)
def test_a_model_that_fails_without_memory_has_no_memory_failure(expected: str) -> None:
    assert label(CASES[expected], Control(Share(0, 9), Share(0, 9))) == "not_a_memory_failure"


def test_damage_that_closing_the_memory_undoes_is_the_memorys() -> None:
    found = judge(CASES["not_read"], 3, 9, Control(Share(0, 9), Share(9, 9)), UNMENDED)
    assert found.label == "memory_harms" and "closing the memory would help" in found.reason


@pytest.mark.parametrize(
    "control", [Control(Share(4, 9), Share(4, 9)), Control(Share(0, 0), Share(0, 0)), Control(Share(0, 9), Share(4, 9))]
)
def test_a_control_that_does_not_separate_decides_nothing(control: Control) -> None:
    assert label(CASES["not_read"], control) == "undecided"


@pytest.mark.parametrize(
    ("change", "expected"), [("fresh", "overwritten"), ("opened", "not_read"), ("own_keys", "not_read")]
)
def test_what_mends_the_tokens_was_the_cause(change: str, expected: str) -> None:
    assert label(case(), **{change: 9}) == expected
    assert label(case(), **{change: 4}) == "undecided"


def test_a_memory_that_still_answers_its_own_keys_is_not_overwritten() -> None:
    assert label(case(), fresh=9, own_keys=9) == "not_read"


def test_a_faint_push_the_right_way_blames_nothing() -> None:
    """Memories diluted by what was folded in since give one: it is not the rest that overrules them."""
    assert label(case(against_given=STRONG)) == label(case(against_given=STRONG), fresh=5) == "undecided"


def test_behind_a_dead_way_out_the_answer_is_read_and_not_used() -> None:
    assert label(case(told_dead=TOLD, overturns=STRONG)) == "read_but_not_used"


@pytest.mark.parametrize("elsewhere", [TOLD, UNSURE])
def test_what_a_closed_head_holds_was_written(elsewhere: Interval) -> None:
    assert label(case(**SILENT, told_closed=elsewhere)) == "undecided"
    assert label(case(**SILENT, told_closed=elsewhere), opened=9) == "not_read"


def test_nan_decides_nothing() -> None:
    bad = Interval(float("nan"), float("nan"), float("nan"), 9)
    assert label(Evidence(**dict.fromkeys((field.name for field in fields(Evidence)), bad))) == "undecided"


def test_few_failures_decide_nothing() -> None:
    few = replace(CASES["never_written"], written=replace(NOTHING, n=4))
    assert label(few) == label(None) == "undecided"
    assert label(None, Control(Share(0, 0), Share(0, 0)), wrong=0) == "works"


def test_labels_are_the_documented_ones() -> None:
    assert LABELS == (
        "works",
        "not_a_memory_failure",
        "memory_harms",
        "never_written",
        "overwritten",
        "not_read",
        "read_but_not_used",
        "undecided",
    )


def test_a_rate_tells_or_is_silent_or_neither() -> None:
    assert tells(TOLD) and not silent(TOLD)
    assert silent(CHANCE) and not tells(CHANCE)
    assert not silent(UNSURE) and not tells(UNSURE)
    assert not silent(replace(CHANCE, n=4)) and not silent(NONE)


@pytest.mark.parametrize(
    ("right", "n", "most", "few"),
    [(6, 6, True, False), (0, 6, False, True), (3, 6, False, False), (0, 0, False, False)],
)
def test_shares_are_wilsons(right: int, n: int, most: bool, few: bool) -> None:
    from scipy import stats

    assert (Share(right, n).most, Share(right, n).few) == (most, few)
    if n:
        found = stats.binomtest(right, n).proportion_ci(method="wilson")
        assert (found.low > 0.5, found.high < 0.5) == (most, few)


def test_intervals_are_students() -> None:
    from scipy import stats

    values = [1.0, 2.0, 4.0, 4.5]
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    found = Interval.of(values)
    assert (found.low, found.high) == pytest.approx((low, high))
