"""Streamed scores are those of the whole logits: across borders, batches and shared prefixes, at every topology."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.config import ModelSettings, Sampling
from infini_eval.distributed.mesh import Mesh, MeshShape
from infini_eval.engine import scoring
from infini_eval.engine.generation import Limits
from infini_eval.engine.native_model import NativeModel, load_replica
from infini_eval.errors import ConfigError, NumericsError
from infini_eval.testing.distributed import poisoned_memory, run_distributed_test
from infini_eval.testing.tiny_models import (
    peak_of_tensors,
    tiny_config,
    tiny_qwen2_config,
    write_tiny_checkpoint,
)

SIZES = [(2, 1), (7, 6), (8, 1), (9, 8), (9, 1), (17, 9), (29, 28), (64, 3), (65, 64), (65, 1), (333, 100), (333, 332)]
TOP = 5


def load(path, **settings) -> NativeModel:
    return NativeModel.load(Checkpoint(path), ModelSettings(device="cpu", **settings))


def write(folder, kind: str = "infini", **changes):
    if kind == "qwen2":
        return write_tiny_checkpoint(folder / "1", tiny_qwen2_config(sliding_window_size=5, no_rope_layer=3, **changes))
    return write_tiny_checkpoint(folder / "1", tiny_config(infini=kind == "infini", **changes))


def rows_of_sizes() -> tuple[list[np.ndarray], list[int]]:
    rng = np.random.default_rng(1)
    return [rng.integers(0, 96, tokens) for tokens, _ in SIZES], [count for _, count in SIZES]


def questions(segment: int = 8, whole: int = 6) -> tuple[list[np.ndarray], list[int]]:
    """Four questions of four choices each about one text: contexts repeat, choices differ in length."""
    rng = np.random.default_rng(2)
    text = rng.integers(3, 96, whole * segment + 3)
    rows, scored = [], []
    for _ in range(4):
        context = np.concatenate([text, rng.integers(3, 96, 9)])
        for choice in range(4):
            scored.append(1 + choice % 3)
            rows.append(np.concatenate([context, rng.integers(3, 96, scored[-1])]))
    return rows, scored


def by_logits(model: NativeModel, row: np.ndarray, count: int, vocabulary: int = 96) -> torch.Tensor:
    """The log-probabilities of all tokens at the scored places, [n, V]."""
    return model.logits(row[None])[0, -count - 1 : -1, :vocabulary].log_softmax(dim=-1)


def check(model: NativeModel, rows, scored, found, vocabulary: int = 96) -> None:
    for row, count, one in zip(rows, scored, found, strict=True):
        expected_NV = by_logits(model, row, count, vocabulary)
        targets_N1 = torch.from_numpy(row[-count:].astype(np.int64))[:, None]
        expected_N = expected_NV.gather(1, targets_N1)[:, 0]
        assert one.logprobs.dtype == np.float32 and one.greedy.dtype == np.bool_ and len(one.logprobs) == count
        torch.testing.assert_close(torch.from_numpy(one.logprobs), expected_N, atol=1e-5, rtol=0)
        assert (one.greedy == (expected_NV.argmax(dim=1) == targets_N1[:, 0]).numpy()).all()
        if one.top_ids is not None:
            best = expected_NV.topk(TOP)
            assert (one.top_ids == best.indices.numpy()).all()
            torch.testing.assert_close(torch.from_numpy(one.top_logprobs), best.values, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["infini", "llama", "qwen2"])
@pytest.mark.parametrize(("batch_size", "chunk_segments"), [(None, None), (1, 1), (3, 3)])
def test_scores_are_those_of_the_logits(tmp_path, kind: str, batch_size, chunk_segments) -> None:
    model = load(write(tmp_path, kind, num_key_value_heads=2), chunk_segments=chunk_segments)
    rows, scored = rows_of_sizes()
    with poisoned_memory():
        found = model.score(rows, scored, top=TOP, batch_size=batch_size)
    check(model, rows, scored, found)


@pytest.mark.parametrize("batch_size", [None, 1, 2, 5])
@pytest.mark.parametrize("limit_gb", [1.0, 0.0])
def test_choices_of_a_question_share_its_context(tmp_path, batch_size, limit_gb: float) -> None:
    model = load(write(tmp_path), prefix_cache_gb=limit_gb)
    rows, scored = questions()
    with poisoned_memory():
        found = model.score(rows, scored, batch_size=batch_size)
    check(model, rows, scored, found)
    reused = sum(one.reused_tokens for one in found)
    # each of the 16 rows has 7 whole segments: 6 in common with all, one with the choices of its question
    assert reused == (15 * 48 + 4 * 3 * 8 if limit_gb else 0)


def test_scored_tokens_inside_a_shared_prefix(tmp_path) -> None:
    """Nothing that is scored is taken from a kept state, which has no logits; what comes before it may be."""
    model = load(write(tmp_path))
    rows, _ = questions()
    scored = [len(row) - 1 if number % 2 else 40 for number, row in enumerate(rows)]
    cache = model.new_prefix_cache()
    for batch_size in (None, 1):
        found = model.score(rows, scored, batch_size=batch_size, prefix_cache=cache)
        check(model, rows, scored, found)
    whole_segments_before = [(len(row) - 1 - count) // 8 * 8 for row, count in zip(rows, scored, strict=True)]
    assert [one.reused_tokens for one in found] == whole_segments_before


def test_a_cache_given_is_used_by_later_calls(tmp_path) -> None:
    model, (rows, scored) = load(write(tmp_path)), questions()
    cache = model.new_prefix_cache()
    model.score(rows, scored, batch_size=1, prefix_cache=cache)
    again = model.score(rows[:1], scored[:1], prefix_cache=cache)
    assert again[0].reused_tokens >= 48
    check(model, rows[:1], scored[:1], again)


def test_padding_rows_of_the_head_have_no_probability(tmp_path) -> None:
    model, rows = load(write(tmp_path)), [np.arange(3, 19), np.arange(2, 13)]
    found = model.score(rows, [15, 4], top=TOP, vocabulary=20)
    check(model, rows, [15, 4], found, vocabulary=20)
    with pytest.raises(ConfigError, match="token id 20 is outside the model's vocabulary of 20"):
        model.score([[5, 6, 20]], [1], vocabulary=20)


def test_pieces_do_not_change_scores(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(scoring.PIECE_BYTES, "cpu", 7 * 96 * 4)
    model, (rows, scored) = load(write(tmp_path)), rows_of_sizes()
    check(model, rows, scored, model.score(rows, scored, top=TOP))


def test_logits_of_a_whole_row_never_stand_in_memory(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(scoring.PIECE_BYTES, "cpu", 1 << 14)
    model = load(write(tmp_path, vocab_size=2048), chunk_segments=2)
    row, tokens = np.random.default_rng(0).integers(0, 2048, 2001), 2000
    assert peak_of_tensors(lambda: model.score([row], [tokens])) < 0.1 * tokens * 2048 * 4
    assert peak_of_tensors(lambda: model.logits(row[None])) > tokens * 2048 * 4


@pytest.mark.parametrize(
    ("rows", "scored", "match"),
    [
        ([[1, 2, 3]], [3], "of which 3 tokens"),
        ([[1, 2, 3]], [0], "of which 0 tokens"),
        ([[1]], [1], "shape"),
        ([[1, 2]], [1, 1], "1 rows"),
        ([[1, 96]], [1], "token id 96"),
    ],
)
def test_what_cannot_be_scored_is_refused(tmp_path, rows, scored, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        load(write(tmp_path)).score(rows, scored)


def test_more_best_tokens_than_there_are_is_refused(tmp_path) -> None:
    model = load(write(tmp_path))
    assert model.score([], []) == []
    with pytest.raises(ConfigError, match="top is 97"):
        model.score([[1, 2]], [1], top=97)


def test_nan_is_reported_not_hidden(tmp_path) -> None:
    model = load(write(tmp_path))
    model.llama.layers[0].gates[1].fill_(float("nan"))
    with pytest.raises(NumericsError, match="row 0"):
        model.score([[1, 2, 3]], [2])


def scores_of_rank(path: str, tp: int, pp: int) -> list[list[np.ndarray]]:
    mesh = Mesh.build(MeshShape(1, tp, pp), int(os.environ["RANK"]))
    model = load_replica(Checkpoint(path), ModelSettings(dtype="float32", chunk_segments=2), mesh, "cpu")
    found = []
    for rows, scored in (rows_of_sizes(), questions()):
        rows = [np.minimum(row, 89) for row in rows]
        found += model.score(rows, scored, top=TOP, vocabulary=90 if tp == 2 else None, batch_size=3)
    return [[one.logprobs, one.greedy, one.top_ids, one.top_logprobs, one.reused_tokens] for one in found]


@pytest.mark.distributed
@pytest.mark.parametrize(("tp", "pp"), [(2, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("kind", ["infini", "llama"])
def test_scores_are_alike_on_every_rank_of_every_topology(tmp_path, monkeypatch, kind: str, tp: int, pp: int) -> None:
    path = str(write_tiny_checkpoint(tmp_path / "1", tiny_config(infini=kind == "infini"), tp=2))
    model, expected = load(path, chunk_segments=2), []
    vocabulary = 90 if tp == 2 else None
    for rows, scored in (rows_of_sizes(), questions()):
        rows = [np.minimum(row, 89) for row in rows]
        expected += model.score(rows, scored, top=TOP, vocabulary=vocabulary, batch_size=3)
    ranks = run_distributed_test(scores_of_rank, tp * pp, args=(path, tp, pp))
    for rank in ranks:
        for one, (logprobs, greedy, top_ids, top_logprobs, _) in zip(expected, rank, strict=True):
            np.testing.assert_allclose(logprobs, one.logprobs, atol=1e-5)
            np.testing.assert_allclose(top_logprobs, one.top_logprobs, atol=1e-5)
            assert (greedy == one.greedy).all() and (top_ids == one.top_ids).all()
    reused = [[one[-1] for one in rank] for rank in ranks]
    assert all(each == reused[0] for each in reused)
    if pp == 1:  # with stages a batch starts before the one ahead of it has kept its states
        assert reused[0] == [one.reused_tokens for one in expected]


def scores_between_answers(path: str) -> list[tuple[list[int], list[float]]]:
    """Each answer of batches of one, and scores taken while the next batch is in flight."""
    mesh = Mesh.build(MeshShape(1, 1, 2), int(os.environ["RANK"]))
    model = load_replica(Checkpoint(path), ModelSettings(dtype="float32"), mesh, "cpu")
    work = ((number, [np.arange(3, 20 + number)], [""], None) for number in range(5))
    found = []
    for number, (completion,) in model.run(work, Limits(4 + 3), Sampling()):
        scored = model.score([np.arange(3, 30 + number)], [9])[0]
        found.append((completion.token_ids, scored.logprobs.tolist()))
    return found


@pytest.mark.distributed
def test_scores_taken_while_answers_are_in_flight(tmp_path) -> None:
    path = write(tmp_path)
    model = load(path)
    for rank in run_distributed_test(scores_between_answers, 2, args=(str(path),)):
        for number, (tokens, logprobs) in enumerate(rank):
            assert tokens == model.generate([np.arange(3, 20 + number)], 7, stop_ids=())[0]
            np.testing.assert_allclose(logprobs, model.score([np.arange(3, 30 + number)], [9])[0].logprobs, atol=1e-5)
