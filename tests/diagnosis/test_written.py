"""Rates: identification across haystacks, the exchanged answers, and what is done with reads that are nothing or NaN."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from infini_eval.data.tokenizer import Tokenizer, load_tokenizer
from infini_eval.diagnosis.evidence import best
from infini_eval.diagnosis.written import exchanged_answer, rate

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(str(ROOT / "checkpoints/infini-demo/tokenizer"))


def reads(difference: float, haystack: float, other: float = 1.0) -> torch.Tensor:
    """Two answers `difference` apart in two haystacks that are `haystack` apart, `other` turning the second's answers."""
    line, shift = torch.tensor([1.0, 0.0]), torch.tensor([0.6, 0.8])
    base = torch.tensor([3.0, 4.0])
    first = [base + difference * line, base - difference * line]
    second = [base + haystack * shift + sign * other * difference * line for sign in (1, -1)]
    return torch.stack([*first, *second])


@pytest.mark.parametrize(
    ("difference", "haystack", "other", "expected"),
    [(1.0, 0.1, 1.0, 1.0), (0.1, 5.0, 1.0, 0.5), (1.0, 0.1, -1.0, 0.0), (0.0, 1.0, 1.0, 0.5), (1e-4, 0.0, 1.0, 0.5)],
)
def test_answers_are_told_apart_across_haystacks(
    difference: float, haystack: float, other: float, expected: float
) -> None:
    """Far apart; less apart than the haystacks; the other way round; not apart; apart by rounding only."""
    assert rate(reads(difference, haystack, other)).item() == expected


def test_a_read_that_is_not_finite_rules_nothing_out() -> None:
    bad = reads(1.0, 0.1)
    bad[3, 0] = float("nan")
    assert rate(bad).isnan()
    column = torch.tensor([[0.5, float("nan")]] * 6)
    assert best(column).mean == 0.5 and best(column).high == float("inf")
    assert best(torch.full((6, 2), float("nan"))).n == 0


def test_the_best_column_is_the_one_with_the_highest_mean() -> None:
    rates = torch.tensor([[0.5, 1.0, 0.0], [0.5, 0.75, 1.0]])
    assert best(rates).mean == pytest.approx(0.875)


@pytest.mark.parametrize(
    ("answer", "place", "expected"),
    [("4880", 0, "8480"), ("4880", 1, "4088"), ("1000", 0, "6000"), ("7777", 2, "7727"), ("51", 1, "15")],
)
def test_the_exchanged_answer_has_the_same_digits_where_it_can(
    answer: str, place: int, expected: str, tokenizer: Tokenizer
) -> None:
    """Digits behind the place are exchanged first; no zero comes to the front; else one digit is changed."""
    assert exchanged_answer(answer, place, tokenizer) == expected


def test_no_answer_is_exchanged_behind_its_end(tokenizer: Tokenizer) -> None:
    assert exchanged_answer("12", 2, tokenizer) is None
