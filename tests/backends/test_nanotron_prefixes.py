"""Shared haystacks through the nanotron backend: memory that runs out, records, the memory plan, resumed batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from infini_eval.api import registry
from infini_eval.api.backend import BatchPlan
from infini_eval.backends.nanotron import NanotronBackend
from infini_eval.config import EvalConfig, ModelSettings
from infini_eval.data.config import GenerateConfig
from infini_eval.data.generate import generate
from infini_eval.data.tokenizer import load_tokenizer
from infini_eval.distributed.launch import launch
from infini_eval.evaluation.guard import plan_memory, unfinished
from infini_eval.records import Sample
from infini_eval.tasks.passkey import TASK

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINT = ROOT / "checkpoints/infini-demo"


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """Six depths at 1k tokens, which are 8 segments, of one haystack."""
    tokenizer = load_tokenizer(str(CHECKPOINT / "tokenizer"))
    depths = (0.0, 20.0, 40.0, 60.0, 80.0, 100.0)
    config = GenerateConfig(context_lengths=(1020,), depths=depths, num_prompts=1, haystack_per="run")
    rows, _ = generate(config, tokenizer, registry.load("tasks", "passkey").generator)
    return [Sample(row["id"], row["prompt"], str(row["answer"]), row["depth_percent"]) for row in rows]


def opened(tmp_path, samples, gb: float, **settings):
    config = EvalConfig(
        str(CHECKPOINT), str(tmp_path), "data", model=ModelSettings(device="cpu", prefix_cache_gb=gb), **settings
    )
    with launch("cpu") as world:
        backend = NanotronBackend(config, world)
    return backend, [backend.prepare(sample, TASK.locate(sample)) for sample in samples]


def answers(backend, prepared, plan: BatchPlan) -> dict[int, object]:
    backend.load(plan)
    found = {}
    for batch, responses in backend.answer((batch, prepared) for batch in plan.batches):
        found |= dict(zip(batch.rows, responses, strict=True))
    return found


def test_records_say_what_was_reused_and_answers_stay(tmp_path, samples) -> None:
    cold, prepared = opened(tmp_path, samples, 0)
    expected = answers(cold, prepared, cold.plan(prepared))
    for size in (None, 2):
        warm, _ = opened(tmp_path, samples, 1, batch_size=size)
        got = answers(warm, prepared, warm.plan(prepared))
        assert {row: each.text for row, each in got.items()} == {row: each.text for row, each in expected.items()}
        reused = {row: each.details["reused_tokens"] for row, each in got.items()}
        assert reused[0] == 0 and sum(reused.values()) >= 128 * (1 + 3 + 4 + 6)  # whole segments before each needle
        assert all(each.seconds > 0 for each in got.values())
    assert {each.details["reused_tokens"] for each in expected.values()} == {0}
    assert [sample.answer in expected[row].text for row, sample in enumerate(samples)].count(True) >= 5


def test_kept_prefixes_go_first_when_memory_runs_out(tmp_path, samples, monkeypatch) -> None:
    backend, prepared = opened(tmp_path, samples, 1, batch_size=3)
    plan = backend.plan(prepared)
    expected = answers(backend, prepared, plan)
    backend.load(plan)
    first, second = [batch for batch in plan.batches if len(batch.rows) > 1][:2]
    next(iter(backend.answer(iter([(first, prepared)]))))
    cache = backend._prefix_cache
    assert len(cache) > 0
    embed, tried = backend._model.llama.embed, []

    def limited(ids_BT):
        tried.append((len(ids_BT), len(cache)))
        if len(cache) or len(ids_BT) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return embed(ids_BT)

    monkeypatch.setattr(backend._model.llama, "embed", limited)
    without_saves = replace(second, snapshot_points=())
    _, got = next(iter(backend.answer(iter([(without_saves, prepared)]))))
    assert [each.text for each in got] == [expected[row].text for row in second.rows]
    assert tried[0][1] > 0 and all(kept == 0 for _, kept in tried[1:])
    assert max(rows for rows, _ in tried[1:]) <= 3 and tried[-1][0] <= 2


def test_resumed_batches_keep_their_plan(tmp_path, samples) -> None:
    backend, prepared = opened(tmp_path, samples, 1, batch_size=3)
    plan = backend.plan(prepared)
    saving = next(batch for batch in plan.batches if batch.snapshot_points)
    done = {prepared[saving.rows[0]].sample.key}
    left = unfinished(plan, prepared, done).batches
    assert sum(len(batch.rows) for batch in left) == len(samples) - 1
    resumed = next(batch for batch in left if set(batch.rows) < set(saving.rows))
    assert (resumed.snapshot_points, resumed.priority) == (saving.snapshot_points, saving.priority)


def test_the_memory_plan_counts_kept_prefixes_and_larger_batches(tmp_path, samples) -> None:
    backend, prepared = opened(tmp_path, samples, 1, batch_size=2)
    assert backend.footprint(BatchPlan([])).kept_prefixes is None
    plan = backend.plan(prepared)
    footprint = backend.footprint(plan)
    assert footprint.kept_prefixes == len({point for batch in plan.batches for point in batch.snapshot_points}) > 0
    backend.load(plan)
    one = backend._model.new_prefix_cache().kind.counted_bytes
    assert plan_memory(footprint, [(2, 1040)]).prefix_cache == footprint.kept_prefixes * one
    assert plan_memory(replace(footprint, kept_bytes=one), [(2, 1040)]).prefix_cache == one
    alone = plan_memory(replace(footprint, kept_prefixes=None), [(3, 1040)])
    assert alone.prefix_cache == 0
    # three rows are read in steps of 2 segments, one row in steps of 8: the larger of the two counts
    assert plan_memory(footprint, [(3, 1040)]).activations > alone.activations
