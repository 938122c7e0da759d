"""Where a row's haystack stands in its pool, and which rows that makes one cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from infini_eval.clusters import overlap_clusters
from infini_eval.datasets import english
from infini_eval.datasets.generate import generate
from infini_eval.datasets.plan import GenerateConfig
from infini_eval.datasets.tokenizer import Tokenizer
from infini_eval.tasks.passkey import TASK


def make(tokenizer: Tokenizer, **options: Any) -> tuple[list[dict[str, Any]], str]:
    settings = {"context_lengths": (700,), "depths": (0, 50, 100), "num_prompts": 4} | options
    rows, haystack = generate(GenerateConfig(**settings), tokenizer, TASK.generator)
    return list(rows), haystack.text


def clusters(rows: list[dict[str, Any]]) -> int:
    columns = [[row[name] for row in rows] for name in ("haystack_pool", "haystack_start", "haystack_end")]
    return int(overlap_clusters(*columns).max()) + 1


def test_the_range_holds_the_prompt_s_haystack(bpe: Tokenizer) -> None:
    rows, text = make(bpe)
    for row in rows:
        stretch = text[row["haystack_start"] : row["haystack_end"]]
        words = [word for word in stretch.split() if word in row["prompt"]]
        assert len(words) > 0.9 * len(stretch.split()) and len(stretch) > 0.7 * len(row["prompt"])
    assert clusters(rows) == 12


def test_haystacks_shared_on_purpose_are_one_cluster_each(bpe: Tokenizer) -> None:
    for per, expected in (("depth", 3), ("trial", 4), ("run", 1)):
        assert clusters(make(bpe, haystack_per=per)[0]) == expected


def test_filler_is_one_cluster_wherever_it_starts(bpe: Tokenizer) -> None:
    rows, _ = make(bpe, haystack="filler")
    assert len({row["haystack_hash"] for row in rows}) == 12
    assert clusters(rows) == 1


def test_a_small_folder_gives_few_haystacks_however_many_starts(bpe: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(english.text(7, 0, 300))
    rows, text = make(bpe, haystack=str(tmp_path), num_prompts=20)
    assert len({row["haystack_hash"] for row in rows}) > 30
    assert clusters(rows) <= len(text) // min(row["haystack_end"] - row["haystack_start"] for row in rows)


def test_a_text_that_starts_again_is_the_same_text(bpe: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(english.text(7, 0, 60))
    rows, _ = make(bpe, haystack=str(tmp_path), context_lengths=(500, 4000), allow_repeat=True)
    assert max(row["haystack_end"] for row in rows) <= len(english.text(7, 0, 60)) + 2
    assert clusters([row for row in rows if row["context_length"] == 4000]) == 1


def test_pools_of_one_source_are_one_pool_whatever_their_size(bpe: Tokenizer) -> None:
    """Lengths generated one by one take their haystacks from the same text, and are compared in one report."""
    (short, _), (long, _) = make(bpe, num_prompts=1), make(bpe, num_prompts=30, context_lengths=(2000,))
    assert {row["haystack_pool"] for row in short} == {row["haystack_pool"] for row in long}
    assert {row["haystack_pool"] for row in short} != {row["haystack_pool"] for row in make(bpe, seed=1)[0]}
    assert clusters([short[0], long[0]]) == 1


def test_prompts_without_a_haystack_are_told_apart_by_their_text(bpe: Tokenizer) -> None:
    rows, _ = make(bpe, control="no-context", depths=(50,))
    assert len({row["prompt"] for row in rows}) == 1
    assert clusters(rows) == 1
