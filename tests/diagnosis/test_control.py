"""Control prompts: needle, question and answer in one segment, made of the row's own words, whatever the row."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from infini_eval.api.backend import WorkItem
from infini_eval.backends.nanotron import prepare_sample
from infini_eval.data.passkey import NEEDLE_SENTENCES, QUESTION, find_passkey
from infini_eval.data.reading import load_samples
from infini_eval.data.tokenizer import Tokenizer, load_tokenizer
from infini_eval.diagnosis.evidence import control_of, is_control
from infini_eval.records import Sample

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "examples/infinite-context-length/data"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(str(ROOT / "checkpoints/infini-demo/tokenizer"))


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return load_samples(str(DATA / "demo-1024-passkey-eval"), depths=[0, 50, 85]).samples


def prepared(sample: Sample, tokenizer: Tokenizer, length: int) -> WorkItem:
    return prepare_sample(sample, find_passkey(sample.prompt, sample.answer), tokenizer, length)


@pytest.mark.parametrize("length", [64, 96, 128, 200, 500])
def test_needle_question_and_answer_stand_in_one_segment(
    samples: list[Sample], tokenizer: Tokenizer, length: int
) -> None:
    for sample in samples[::3]:
        item = prepared(sample, tokenizer, length)
        made = control_of(item, tokenizer, length)
        assert made is not None and is_control(made)
        assert item.tokens - length - 8 < made.tokens <= item.tokens + 8


def test_a_control_is_made_of_the_rows_own_words(samples: list[Sample], tokenizer: Tokenizer) -> None:
    for sample in samples[::5]:
        made = control_of(prepared(sample, tokenizer, 128), tokenizer, 128)
        assert made is not None and made.sample.answer == sample.answer
        assert made.sample.prompt.endswith(QUESTION)
        assert made.sample.prompt.count(NEEDLE_SENTENCES.format(key=sample.answer)) == 1
        new = Counter(made.sample.prompt.split()) - Counter(sample.prompt.split())
        assert sum(new.values()) <= 2  # a word cut in two


@pytest.mark.parametrize("cut", range(0, 128, 17))
def test_every_phase_of_the_question_is_brought_into_place(
    samples: list[Sample], tokenizer: Tokenizer, cut: int
) -> None:
    """The same row with some of its filler's characters taken away at the needle's far side."""
    sample = samples[0]
    start = sample.prompt.rfind("\n") - 4 * cut
    shorter = replace(sample, prompt=sample.prompt[:start] + sample.prompt[start + 4 * cut :])
    made = control_of(prepared(shorter, tokenizer, 128), tokenizer, 128)
    assert made is not None and is_control(made)


def test_what_does_not_fit_gives_no_control(samples: list[Sample], tokenizer: Tokenizer) -> None:
    assert control_of(prepared(samples[0], tokenizer, 32), tokenizer, 32) is None


def test_a_row_without_the_question_gives_no_control(samples: list[Sample], tokenizer: Tokenizer) -> None:
    sample = replace(samples[0], prompt=samples[0].prompt.removesuffix(QUESTION))
    assert control_of(prepared(sample, tokenizer, 128), tokenizer, 128) is None


def test_a_straddling_needle_is_no_control(samples: list[Sample], tokenizer: Tokenizer) -> None:
    made = control_of(prepared(samples[0], tokenizer, 128), tokenizer, 128)
    assert made is not None
    for changes in ({"straddles_border": True}, {"answer_crosses_border": True}, {"compressions": 1}):
        assert not is_control(replace(made, position=replace(made.position, **changes)))
