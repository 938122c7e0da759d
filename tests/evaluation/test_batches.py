"""Rows of a batch: what the planner says fits, decided once for all ranks and attempts; the user's own number stands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from infini_eval.config import EvalConfig
from infini_eval.datasets.parquet import load_samples
from infini_eval.distributed.launch import launch
from infini_eval.evaluation.batches import batch_sizes, batches_left
from infini_eval.evaluation.preparing import prepare_samples
from infini_eval.evaluation.run_folder import RunFolder
from infini_eval.planning.check import check, rows_that_fit
from infini_eval.records import RunManifest
from infini_eval.results.manifest import read_manifest
from infini_eval.tasks.passkey import TASK
from infini_eval.testing.distributed import run_distributed_test

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "examples/infinite-context-length/data/demo-1024-passkey-eval"
MANIFEST = RunManifest({}, {}, {}, 16)


def backend_with_room_for(config: EvalConfig, world, rows: int):
    """The nanotron backend on a device with exactly the memory that batches of up to `rows` prompts of 1k need."""
    from infini_eval.backends.nanotron import NanotronBackend

    class Tight(NanotronBackend):
        def footprint(self, plan):
            roomy = replace(super().footprint(plan), capacity=10**12)
            needed = (check(roomy, [(number, 1008 + 15)]).total for number in range(1, rows + 1))
            return replace(roomy, capacity=max(needed))

    return Tight(config, world)


def left_in(folder: str, rows: int, **settings):
    config = EvalConfig(str(ROOT / "checkpoints/infini-demo"), folder, str(DATA), **settings)
    with launch("cpu") as world:
        backend = backend_with_room_for(config, world, rows)
        prepared = prepare_samples(TASK, backend, load_samples(str(DATA)).samples[:16], world)
        with RunFolder(config, MANIFEST, world) as opened:
            plan = batches_left(config, backend, world, prepared, opened)
        assert sorted(row for batch in plan.batches for row in batch.rows) == list(range(16))
        footprint, sizes = backend.footprint(plan), batch_sizes(config, plan, prepared)
        return [len(batch.rows) for batch in plan.batches], rows_that_fit(footprint, sizes)


def learnt(folder) -> dict | None:
    return read_manifest(folder).environment.get("batch_sizes")


def test_rows_are_those_that_fit(tmp_path):
    assert left_in(str(tmp_path / "a"), 8) == ([8, 8], 8)
    assert learnt(tmp_path / "a") is None
    sizes, _ = left_in(str(tmp_path / "b"), 3)
    assert sizes == [3, 3, 3, 3, 3, 1]
    assert learnt(tmp_path / "b") == {"largest": 3}


def test_a_resumed_run_keeps_them_and_may_need_fewer(tmp_path):
    folder = str(tmp_path / "run")
    left_in(folder, 7)
    assert left_in(folder, 8)[0] == [7, 7, 2]  # more memory than the first attempt had: the same companions
    assert left_in(folder, 3)[0] == [3, 3, 3, 3, 3, 1]
    assert learnt(folder) == {"largest": 3}


@pytest.mark.parametrize("settings", [{"batch_size": 8}, {"plan": False}], ids=["batch size given", "no plan"])
def test_what_the_user_says_stands(tmp_path, settings):
    assert left_in(str(tmp_path), 2, **settings)[0] == [8, 8]
    assert learnt(tmp_path) is None


def least_of_two(folder: str):
    import os

    rank = int(os.environ["RANK"])
    return left_in(folder, (8, 3)[rank])[0]


@pytest.mark.distributed
def test_the_rank_with_least_memory_decides_for_all(tmp_path):
    assert run_distributed_test(least_of_two, 2, None, args=(str(tmp_path),)) == [[3, 3, 3, 3, 3, 1]] * 2
    assert learnt(tmp_path) == {"largest": 3}
