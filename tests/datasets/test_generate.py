"""Generated data sets: the same rows whatever the workers, keys apart, phases and segments as asked."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from typing import Any

import pytest

from infini_eval.api.task import Task
from infini_eval.datasets import english
from infini_eval.datasets.characters import tokens_of_characters
from infini_eval.datasets.generate import _answered, generate
from infini_eval.datasets.keys import KeyDrawer, key_range
from infini_eval.datasets.needle_position import token_span
from infini_eval.datasets.plan import GenerateConfig, Shortage, plan_rows, shortages
from infini_eval.datasets.sources import Source
from infini_eval.datasets.tokenizer import Tokenizer
from infini_eval.datasets.validate import validate
from infini_eval.errors import ConfigError, DataError
from infini_eval.records import Sample
from infini_eval.tasks import niah
from infini_eval.tasks.passkey import TASK


def make(tokenizer: Tokenizer, workers: int = 1, **options: Any) -> list[dict[str, Any]]:
    settings = {"context_lengths": (700,), "depths": (0, 50, 100), "num_prompts": 4} | options
    rows, _ = generate(GenerateConfig(**settings), tokenizer, TASK.generator, workers=workers)
    return list(rows)


def as_samples(rows: list[dict[str, Any]]) -> list[Sample]:
    return [Sample(r["id"], r["prompt"], str(r["answer"]), r["depth_percent"]) for r in rows]


@pytest.mark.parametrize("shots", [0, 3])
def test_rows_are_exact_clean_and_do_not_depend_on_workers(any_tokenizer: Tokenizer, shots: int) -> None:
    rows = make(any_tokenizer, num_shots=shots, context_lengths=(900, 1200))
    assert rows == make(any_tokenizer, num_shots=shots, context_lengths=(900, 1200), workers=3)
    assert len(rows) == 24 and validate(as_samples(rows)) == []
    assert [any_tokenizer.count(row["prompt"]) for row in rows] == [900] * 12 + [1200] * 12
    assert len({row["answer"] for row in rows}) == 24
    assert len({row["haystack_hash"] for row in rows}) == 24
    assert rows != make(any_tokenizer, num_shots=shots, context_lengths=(900, 1200), seed=1)


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
    """A text that one prompt can be cut from serves many prompts, in as many places as fit without overlap."""
    (tmp_path / "a.txt").write_text(english.text(7, 0, 300))
    rows = make(bpe, haystack=str(tmp_path), context_lengths=(700, 1_500), num_prompts=20)
    assert [bpe.count(row["prompt"]) for row in rows] == [700] * 60 + [1_500] * 60
    assert {row["haystack_unique"] for row in rows} == {1.0} and validate(as_samples(rows)) == []
    short, long = shortages_of(bpe, haystack=str(tmp_path), context_lengths=(700, 1_500), num_prompts=20)
    assert (short.asked, long.asked) == (60, 60) and short.independent > long.independent > 1
    assert apart(rows[:60]) == short.independent and apart(rows[60:]) == long.independent


@pytest.mark.parametrize("source", ["english", "python-docs", "folder"])
def test_a_pool_that_is_large_enough_gives_samples_that_do_not_overlap(bpe: Tokenizer, tmp_path, source: str) -> None:
    (tmp_path / "a.txt").write_text(english.text(7, 0, 4_000))
    name = str(tmp_path) if source == "folder" else source
    small = {"haystack": name, "context_lengths": (1_200,), "depths": (50,), "num_prompts": 60, "pool_tokens": 9_000}
    (short,) = shortages_of(bpe, **small)
    assert short.asked == 60 > short.independent == apart(make(bpe, **small))
    enough = small | {"pool_tokens": short.needed}
    assert shortages_of(bpe, **enough) == [] and apart(make(bpe, **enough)) == 60


def test_repeated_text_is_one_haystack(bpe: Tokenizer, tmp_path) -> None:
    for name in ("filler", "noise"):
        (short,) = shortages_of(bpe, haystack=name, depths=(0, 100))
        rows = make(bpe, haystack=name, depths=(0, 100))
        assert (short.asked, short.independent, apart(rows)) == (8, 1, 1)
        assert {(row["haystack_start"], row["haystack_end"]) for row in rows} == {(0, 90)}
    (tmp_path / "a.txt").write_text(english.text(7, 0, 60))
    repeated = {"haystack": str(tmp_path), "context_lengths": (4_000,), "allow_repeat": True}
    (short,) = shortages_of(bpe, **repeated)
    assert short.independent == 1 == apart(make(bpe, **repeated)) and short.pool < 2_500
    assert shortages_of(bpe, haystack="filler", haystack_per="run") == []


def test_the_pool_is_named_whatever_is_read_of_it(bpe: Tokenizer, tokenizer_maker) -> None:
    rows = [make(t, context_lengths=(n,)) for t in (bpe, tokenizer_maker("unigram")) for n in (700, 40_000)]
    assert len({row["haystack_pool"] for some in rows for row in some}) == 1
    assert {row["haystack_pool"] for row in make(bpe, seed=1)} != {rows[0][0]["haystack_pool"]}
    row = rows[0][5]
    pool = "".join(itertools.islice(english.blocks(42), 3))
    body = row["prompt"].partition("Passage:")[2].partition(". The pass key is")[0]
    assert body and pool[row["haystack_start"] :].startswith(body)
    assert row["prompt"].rpartition(". What is")[0].endswith(pool[row["haystack_end"] - 20 : row["haystack_end"]])


def overlap(one: dict[str, Any], other: dict[str, Any]) -> float:
    both = min(one["haystack_end"], other["haystack_end"]) - max(one["haystack_start"], other["haystack_start"])
    return both / min(row["haystack_end"] - row["haystack_start"] for row in (one, other))


def apart(rows: list[dict[str, Any]]) -> int:
    """The clusters of rows of one pool whose haystacks overlap by more than a tenth."""
    assert len({row["haystack_pool"] for row in rows}) == 1
    clusters: list[list[dict[str, Any]]] = []
    for row in rows:
        near = [cluster for cluster in clusters if any(overlap(row, other) > 0.1 for other in cluster)]
        clusters = [cluster for cluster in clusters if cluster not in near] + [[row, *itertools.chain(*near)]]
    return len(clusters)


def shortages_of(tokenizer: Tokenizer, **options: Any) -> list[Shortage]:
    settings = {"context_lengths": (700,), "depths": (0, 50, 100), "num_prompts": 4} | options
    config = GenerateConfig(**settings)
    _, haystack = generate(config, tokenizer, TASK.generator)
    return shortages(plan_rows(config), haystack)


@pytest.mark.parametrize("kind", ["super_bpe", "merging_unigram"])
@pytest.mark.parametrize("task", [TASK, niah.TASK], ids=["passkey", "niah"])
def test_measures_hold_where_tokens_reach_over_spaces(tokenizer_maker, kind: str, task: Task) -> None:
    tokenizer = tokenizer_maker(kind)
    config = GenerateConfig((4_000,), (0, 30, 50, 70, 100), 8, task=task.name)
    for row in generate(config, tokenizer, task.generator)[0]:
        _, offsets = tokenizer.encode_with_offsets(row["prompt"])
        assert len(offsets) == row["token_count"] == 4_000 and row["verified"] == "yes"
        sample = Sample(row["id"], row["prompt"], str(row["answer"]), row["depth_percent"], columns=row)
        span = task.locate(sample)
        assert span and token_span(span, offsets) == (row["needle_token_start"], row["needle_token_end"])


def test_what_is_not_verified_does_not_say_so(bpe: Tokenizer) -> None:
    config = GenerateConfig((700,), (50,), 2)
    assert [row["verified"] for row in generate(config, bpe, TASK.generator, verify=False)[0]] == ["no", "no"]


def test_too_few_words_for_depths_are_refused_with_the_least_length(tokenizer_maker) -> None:
    def real_depths(length: int) -> list[tuple[float, float]]:
        config = GenerateConfig((length,), (0, 25, 50, 75, 100), 4, task="niah")
        rows = generate(config, tokenizer_maker("characters"), niah.TASK.generator)[0]
        return [(row["depth_percent"], row["real_depth"]) for row in rows]

    with pytest.raises(
        DataError, match="200 tokens are too few for depths: the needle cannot stand at 25 %"
    ) as refused:
        real_depths(200)
    least = int(re.search(r"at least (\d+) tokens", str(refused.value))[1])  # type: ignore[index]
    assert 250 < least < 400
    for length in (least, 700):
        assert all(abs(label - real) <= 5 for label, real in real_depths(length))


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
