"""Generated data sets: the same rows whatever the workers, keys apart, phases and segments as asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from infini_eval.datasets import english
from infini_eval.datasets.characters import tokens_of_characters
from infini_eval.datasets.generate import _answered, generate
from infini_eval.datasets.keys import KeyDrawer, key_range
from infini_eval.datasets.plan import GenerateConfig
from infini_eval.datasets.sources import Source
from infini_eval.datasets.tokenizer import Tokenizer
from infini_eval.datasets.validate import validate
from infini_eval.errors import ConfigError, DataError
from infini_eval.records import Sample
from infini_eval.tasks.passkey import TASK


def make(tokenizer: Tokenizer, workers: int = 1, **options: Any) -> list[dict[str, Any]]:
    settings = {"context_lengths": (700,), "depths": (0, 50, 100), "num_prompts": 4} | options
    rows, _ = generate(GenerateConfig(**settings), tokenizer, TASK.generator, workers=workers)
    return list(rows)


def as_samples(rows: list[dict[str, Any]]) -> list[Sample]:
    return [Sample(r["id"], r["prompt"], str(r["answer"]), r["depth_percent"]) for r in rows]


@pytest.mark.parametrize("shots", [0, 3])
def test_rows_are_exact_clean_and_do_not_depend_on_workers(tokenizer: Tokenizer, shots: int) -> None:
    rows = make(tokenizer, num_shots=shots, context_lengths=(900, 1200))
    assert rows == make(tokenizer, num_shots=shots, context_lengths=(900, 1200), workers=3)
    assert len(rows) == 24 and validate(as_samples(rows)) == []
    assert [tokenizer.count(row["prompt"]) for row in rows] == [900] * 12 + [1200] * 12
    assert len({row["answer"] for row in rows}) == 24
    assert len({row["haystack_hash"] for row in rows}) == 24
    assert rows != make(tokenizer, num_shots=shots, context_lengths=(900, 1200), seed=1)


def test_haystack_per(bpe: Tokenizer) -> None:
    for per, hashes in (("prompt", 12), ("depth", 3), ("trial", 4), ("run", 1)):
        rows = make(bpe, haystack_per=per)
        assert len({row["haystack_hash"] for row in rows}) == hashes
        assert validate(as_samples(rows)) == []


def test_one_haystack_has_one_prefix(bpe: Tokenizer) -> None:
    rows = make(bpe, haystack_per="run", depths=(50, 75))
    until = min(row["prompt"].index(". The pass key is") for row in rows)
    assert len({row["prompt"][:until] for row in rows}) == 1


def test_length_with_the_answer(bpe: Tokenizer) -> None:
    rows = make(bpe, length_includes_answer=True, answer_budget=20)
    assert {row["token_count"] for row in rows} == {680}
    assert {(row["context_length"], row["length_includes_answer"]) for row in rows} == {(700, "yes")}


def test_loose_lengths(bpe: Tokenizer) -> None:
    rows = make(bpe, exact=False, context_lengths=(700, 2_500))
    assert {row["token_count"] for row in rows[:12]} == {700}
    loose = [row["token_count"] for row in rows[12:]]
    assert min(loose) >= 1_800 and max(loose) <= 2_500 and len(set(loose)) > 6
    assert [bpe.count(row["prompt"]) for row in rows[12:]] == loose


def test_phases(bpe: Tokenizer) -> None:
    assert {row["token_count"] for row in make(bpe, question_phase="border", segment_length=128)} == {640}
    assert {row["token_count"] for row in make(bpe, question_phase="5", segment_length=128)} == {646}
    jitter = {row["token_count"] for row in make(bpe, question_phase="jitter", segment_length=128)}
    assert len(jitter) > 6 and min(jitter) > 700 - 128
    with pytest.raises(ConfigError, match="'128' is not a phase"):
        make(bpe, question_phase="128", segment_length=128)
    with pytest.raises(ConfigError, match="segment length"):
        make(bpe, question_phase="border")


def test_segments(bpe: Tokenizer) -> None:
    common = {"segment_length": 128, "context_lengths": (2_000,)}
    for row in make(bpe, needle_segment=6, **common):
        assert row["needle_token_start"] // 128 == 6 == (row["needle_token_end"] - 1) // 128
    for row in make(bpe, boundary="straddle", depths=(30, 100), **common):
        assert row["needle_token_start"] // 128 != (row["needle_token_end"] - 1) // 128
    for row in make(bpe, boundary="before", depths=(60,), **common):
        assert 0 <= -row["needle_token_end"] % 128 < 8
    for row in make(bpe, boundary="after", depths=(60,), **common):
        assert 0 <= row["needle_token_start"] % 128 < 8
    with pytest.raises(DataError, match="cannot stand"):
        make(bpe, needle_segment=40, **common)


def test_training_data(bpe: Tokenizer) -> None:
    rows = make(bpe, is_eval=False)
    assert all(row["prompt"].endswith(f"The pass key is {row['answer']}") and row["is_eval"] == "no" for row in rows)
    assert _answered("Which code?", "7") == "Which code? 7"


def test_keys_that_run_out(bpe: Tokenizer) -> None:
    assert (key_range(1), key_range(3)) == (range(1, 10), range(100, 1000))
    drawer = KeyDrawer("x")
    assert sorted(int(drawer.draw(1)) for _ in range(9)) == list(range(1, 10))
    with pytest.raises(DataError, match=r"no key of 1 digit\(s\) is left"):
        drawer.draw(1)
    with pytest.raises(DataError, match="no key of 1 digit"):
        make(bpe, num_digits=(1,), haystack="filler")
    rows = make(bpe, num_digits=(1,), haystack="filler", distinct_keys="cell")
    assert all(len({row["answer"] for row in rows[i : i + 4]}) == 4 for i in (0, 4, 8))
    assert int(KeyDrawer("x", {str(key) for key in range(10_000, 90_000)}).draw(5)) >= 90_000
    assert KeyDrawer("x", {str(key) for key in range(100, 999)}).draw(3) == "999"


def test_keys_never_stand_in_the_haystack(bpe: Tokenizer) -> None:
    """Years and counts are four- and three-digit numbers of the haystack itself."""
    rows = make(bpe, num_digits=(3, 4), context_lengths=(4_000,), num_prompts=20, distinct_keys="cell")
    assert validate(as_samples(rows)) == []


def test_a_haystack_of_ones_own(bpe: Tokenizer, tmp_path) -> None:
    (tmp_path / "a.txt").write_text("The green grass grows by the blue river and nobody sees it. " * 3_000)
    rows = make(bpe, haystack=str(tmp_path))
    assert {row["haystack"] for row in rows} == {tmp_path.name}
    assert "blue river" in rows[0]["prompt"] and {bpe.count(row["prompt"]) for row in rows} == {700}


def test_prompts_share_a_small_haystack(bpe: Tokenizer, tmp_path) -> None:
    """A text that one prompt can be cut from serves many prompts, which start at places of their own."""
    (tmp_path / "a.txt").write_text(english.text(7, 0, 300))
    rows = make(bpe, haystack=str(tmp_path), context_lengths=(700, 1_500), num_prompts=20)
    assert [bpe.count(row["prompt"]) for row in rows] == [700] * 60 + [1_500] * 60
    assert len({row["haystack_hash"] for row in rows}) > 60 and {row["haystack_unique"] for row in rows} == {1.0}
    assert validate(as_samples(rows)) == []


def test_a_haystack_that_runs_out_within_a_prompt(bpe: Tokenizer, tmp_path) -> None:
    (tmp_path / "a.txt").write_text(english.text(7, 0, 60))
    with pytest.raises(DataError, match=r"too short: it has [\d,]+ tokens, a prompt needs 4,000"):
        make(bpe, haystack=str(tmp_path), context_lengths=(700, 4_000))
    rows = make(bpe, haystack=str(tmp_path), context_lengths=(700, 4_000), allow_repeat=True)
    assert {row["haystack_unique"] for row in rows[:12]} == {1.0}
    assert all(0.2 < row["haystack_unique"] < 0.6 for row in rows[12:])
    assert [bpe.count(row["prompt"]) for row in rows] == [700] * 12 + [4_000] * 12


def test_lists_have_no_places(bpe: Tokenizer) -> None:
    generator = replace(TASK.generator, needs_haystack=False)
    for flag, value in (("control", "no-context"), ("question_phase", "border"), ("boundary", "before")):
        with pytest.raises(ConfigError, match=f"--{flag.replace('_', '-')} does not go with the task"):
            generate(GenerateConfig((700,), (0,), 1, **{flag: value}), bpe, generator)


@pytest.mark.parametrize("characters", [3_000, 90_000])
def test_a_size_in_characters(bpe: Tokenizer, characters: int) -> None:
    tokens = tokens_of_characters(characters, Source("english", 42).parts(), bpe)
    (row,) = make(bpe, context_lengths=(tokens,), depths=(50,), num_prompts=1)
    assert len(row["prompt"]) == pytest.approx(characters, rel=0.06)
    assert tokens_of_characters(10**8, Source("english", 42).parts(), bpe) == pytest.approx(
        tokens * 1e8 / characters, rel=0.03
    )


def test_a_haystack_that_holds_the_needle(bpe: Tokenizer, tmp_path) -> None:
    (tmp_path / "a.txt").write_text("green grass and blue sky " * 2_000 + "the pass key is here and there")
    with pytest.raises(DataError, match="already holds the needle"):
        make(bpe, haystack=str(tmp_path), allow_repeat=True)
