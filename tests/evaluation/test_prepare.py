"""Prompts tokenised once over all processes: the same facts on every rank, few ids kept, errors and stops that end it."""

from __future__ import annotations

import threading
import time
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from infini_eval.api.backend import Batch, WorkItem, no_ids
from infini_eval.config import EvalConfig
from infini_eval.data.reading import load_samples
from infini_eval.distributed.launch import launch
from infini_eval.distributed.mesh import Mesh
from infini_eval.distributed.shutdown import Interrupted
from infini_eval.distributed.work_queue import SPARE, WorkQueue
from infini_eval.errors import EXIT_INTERRUPTED, ConfigError, DataError
from infini_eval.evaluation import prepare
from infini_eval.evaluation.prepare import (
    AHEAD,
    BatchPrefetcher,
    prepare_items,
    preprocess_identity,
    preprocessed,
    with_ids,
)
from infini_eval.records import NeedlePosition, Sample
from infini_eval.tasks.passkey import TASK
from infini_eval.testing.distributed import run_distributed_test
from support.limits import PROCESS_S

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "examples/infinite-context-length/data/demo-1024-passkey-eval"
CONFIG = EvalConfig(str(ROOT / "checkpoints/infini-demo"), "nowhere", str(DATA))
NUMBER = 7


class Counting:
    """The nanotron backend, which counts what it tokenises and fails for one sample."""

    def __init__(self, world, bad: str | None = None) -> None:
        from infini_eval.backends.nanotron import NanotronBackend

        self.inner, self.bad, self.prepared = NanotronBackend(CONFIG, world), bad, 0

    def prepare(self, sample, needle):
        if sample.id == self.bad:
            raise DataError(f"{sample.id} cannot be tokenised")
        self.prepared += 1
        return self.inner.prepare(sample, needle)

    def token_ids(self, sample):
        return self.inner.token_ids(sample)


def samples():
    return load_samples(str(DATA)).samples[:NUMBER]


def facts_and_work():
    with launch("cpu") as world:
        backend = Counting(world)
        prepared = prepare_items(TASK, backend, samples(), world)
        ids = [with_ids(item, backend).ids.tolist() for item in prepared]
        facts = [(item.tokens, asdict(item.position), item.excerpt) for item in prepared]
        return backend.prepared, facts, ids


@pytest.mark.distributed
@pytest.mark.parametrize("processes", [2, 4])
def test_ranks_share_the_work_and_all_know_the_same(processes):
    ranks = run_distributed_test(facts_and_work, processes, None)
    assert [made for made, _, _ in ranks] == [len(range(rank, NUMBER, processes)) for rank in range(processes)]
    alone = facts_and_work()
    assert alone[0] == NUMBER and alone[1][0][1]["token_start"] is not None
    assert all(rank[1:] == alone[1:] for rank in ranks)


def test_ids_beyond_the_bound_are_made_again(monkeypatch):
    monkeypatch.setattr(prepare, "KEPT_BYTES", 2 * 4 * 1100)  # two prompts of 1,008 tokens
    with launch("cpu") as world:
        backend = Counting(world)
        prepared = prepare_items(TASK, backend, samples(), world)
        assert sum(len(item.ids) > 0 for item in prepared) == 2
        for item in prepared:
            whole = with_ids(item, backend)
            assert len(whole.ids) == item.tokens and whole.ids.dtype == np.int32
            assert whole.ids.tolist() == backend.inner.tokenizer.encode_with_span(item.sample.prompt, None)[0].tolist()


def test_a_stop_ends_the_tokenising():
    with launch("cpu") as world:
        world.stop.ask("the test")
        backend = Counting(world)
        with pytest.raises(Interrupted, match="the test"):
            prepare_items(TASK, backend, samples(), world)
        assert backend.prepared == 0


def fail_on_rank_1():
    with launch("cpu") as world:
        prepare_items(TASK, Counting(world, bad=samples()[1].id), samples(), world)
    return "unreached"


@pytest.mark.distributed
def test_an_error_in_one_ranks_share_ends_all_as_a_users_error():
    with pytest.raises(AssertionError, match="ended with status 2"):
        run_distributed_test(fail_on_rank_1, 2, None)


def stop_on_rank_1():
    with launch("cpu") as world:
        if world.rank == 1:
            world.stop.ask("the test")
        prepare_items(TASK, Counting(world), samples(), world)
    return "unreached"


@pytest.mark.distributed
def test_a_stop_of_one_rank_ends_the_others_waiting_for_its_share():
    with pytest.raises(AssertionError, match=f"ended with status {EXIT_INTERRUPTED}"):
        run_distributed_test(stop_on_rank_1, 2, None)


class Tokens:
    """A backend whose ids are a sample's length, counted; it fails for the sample `bad`."""

    def __init__(self, bad: str | None = None) -> None:
        self.bad, self.made = bad, 0

    def token_ids(self, sample: Sample) -> np.ndarray:
        if sample.id == self.bad:
            raise DataError(f"{sample.id} cannot be tokenised")
        self.made += 1
        return np.full(len(sample.prompt), int(sample.id), np.int32)


def made_up(number: int) -> tuple[list[WorkItem], list[Batch]]:
    samples = [Sample(str(i), "x" * (i + 1), "", 0.0) for i in range(number)]
    prepared = [WorkItem(sample, no_ids(), len(sample.prompt), NeedlePosition(None, None), "") for sample in samples]
    return prepared, [Batch((row,), row + 1) for row in range(number)]


def prefetcher(number: int, backend: Tokens) -> BatchPrefetcher:
    prepared, batches = made_up(number)
    return BatchPrefetcher(WorkQueue([batch.cost for batch in batches], Mesh()), batches, prepared, backend)


def test_every_batch_comes_once_with_its_own_ids():
    with prefetcher(5, Tokens()) as source:
        given = list(source)
    assert [one.number for one in given] == [4, 3, 2, 1, 0]
    for index, batch, rows in given:
        assert batch.rows == (index,)
        assert list(rows) == [index]
        assert rows[index].ids.tolist() == [index] * (index + 1) == [index] * rows[index].tokens


def test_ids_that_were_kept_are_not_made_again():
    prepared, batches = made_up(1)
    kept = WorkItem(prepared[0].sample, np.array([7], np.int32), 1, prepared[0].position, "")
    backend = Tokens()
    with BatchPrefetcher(WorkQueue([1], Mesh()), batches, [kept], backend) as source:
        assert next(iter(source)).rows[0].ids is kept.ids
    assert backend.made == 0


def test_one_batch_is_made_ahead_and_no_more():
    backend = Tokens()
    with prefetcher(9, backend) as source:
        deadline = time.monotonic() + PROCESS_S
        given = iter(source)
        for taken in range(1, 5):
            next(given)
            while backend.made < taken + AHEAD and time.monotonic() < deadline:
                time.sleep(0.005)
            time.sleep(0.05)  # time to run too far
            assert backend.made == taken + AHEAD


def test_a_failing_thread_fails_the_compute():
    with pytest.raises(DataError, match="1 cannot be tokenised"), prefetcher(4, Tokens(bad="1")) as source:
        list(source)
    assert_no_prefetch_threads()


def test_leaving_early_ends_the_thread():
    with prefetcher(50, Tokens()) as source:
        next(iter(source))
    assert_no_prefetch_threads()


def assert_no_prefetch_threads() -> None:
    deadline = time.monotonic() + PROCESS_S
    while any(thread.name == "prefetch" for thread in threading.enumerate()):
        assert time.monotonic() < deadline, "the prefetcher's thread is still there"
        time.sleep(0.01)


def test_near_the_end_nothing_is_held_back():
    """As many batches as there are replicas: each must find one, however early the first one asks."""
    mesh = SimpleNamespace(shape=SimpleNamespace(dp=4, tp=1, pp=1, world_size=4), is_leader=True, dp_rank=0)
    store = SimpleNamespace(taken=0)
    store.add = lambda key, number: setattr(store, "taken", store.taken + number) or store.taken
    queue = WorkQueue([1.0] * (4 * SPARE + 1), mesh, store)
    assert queue.has_plenty()
    queue.pull()
    assert not queue.has_plenty()


def fed_in_two_replicas_of_two():
    import os

    from infini_eval.distributed.launch import launch
    from infini_eval.distributed.mesh import MeshShape

    with launch("cpu") as world:
        mesh = Mesh.build(MeshShape(2, 2, 1), int(os.environ["RANK"]))
        prepared, batches = made_up(12)
        queue = WorkQueue([batch.cost for batch in batches], mesh, world.new_client())
        with BatchPrefetcher(queue, batches, prepared, Tokens()) as source:
            return mesh.dp_rank, [(one.number, one.rows[one.number].ids.sum().item()) for one in source]


@pytest.mark.distributed
def test_all_ranks_of_a_replica_get_the_same_batches():
    ranks = run_distributed_test(fed_in_two_replicas_of_two, 4, None)
    by_replica = dict(ranks)
    assert all(by_replica[replica] == given for replica, given in ranks)
    everything = sorted(pair for given in by_replica.values() for pair in given)
    assert everything == [(i, i * (i + 1)) for i in range(12)]


def prefetcher_that_fails_on_rank_1():
    import torch
    import torch.distributed as dist

    from infini_eval.distributed.launch import launch
    from infini_eval.distributed.mesh import MeshShape

    with launch("cpu") as world:
        mesh = Mesh.build(MeshShape(1, 2, 1), world.rank)
        prepared, batches = made_up(6)
        queue = WorkQueue([batch.cost for batch in batches], mesh, world.new_client())
        with BatchPrefetcher(queue, batches, prepared, Tokens(bad="2" if world.rank == 1 else None)) as source:
            for _ in source:
                dist.all_reduce(torch.ones(1), group=mesh.tp_group)  # rank 0 waits here for ever
    return "unreached"


@pytest.mark.distributed
def test_a_failing_thread_ends_the_peers_that_wait_in_a_collective():
    with pytest.raises(AssertionError, match="ended with status 2"):
        run_distributed_test(prefetcher_that_fails_on_rank_1, 2, None)


EXTRACTIVE = ROOT / "examples/preprocess/extractive.py"


def test_prompts_are_changed_by_the_users_function_and_the_old_length_is_kept():
    before = samples()
    after, note = preprocessed(before, f"{EXTRACTIVE}:half")
    assert [sample.columns["characters_before"] for sample in after] == [len(sample.prompt) for sample in before]
    assert all(len(new.prompt) <= 0.55 * len(old.prompt) for new, old in zip(after, before, strict=True))
    assert all(TASK.locate(sample) is not None for sample in after), "what the question asks for stays"
    assert all(sample.prompt.endswith("What is the pass key? The pass key is ") for sample in after)
    assert f"{EXTRACTIVE}:half: prompts have" in note
    assert {sample.key for sample in after}.isdisjoint(sample.key for sample in before), (
        "another prompt, another sample"
    )


def test_a_function_of_a_module_in_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "shorten_for_test.py").write_text("def last(sample):\n    return sample.prompt[-40:]\n")
    monkeypatch.chdir(tmp_path)
    after, _ = preprocessed(samples(), "shorten_for_test:last")
    assert {len(sample.prompt) for sample in after} == {40}
    before = preprocess_identity("shorten_for_test:last")
    (tmp_path / "shorten_for_test.py").write_text("def last(sample):\n    return sample.prompt[-41:]\n")
    assert preprocess_identity("shorten_for_test:last") != before, "another function is another run"


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("nothing", "--preprocess 'nothing'"),
        ("no_such_module:f", "cannot be imported"),
        ("missing.py:f", "cannot be imported"),
        ("math:pi", "is float"),
        ("math:exp", "fails on the sample"),
        ("builtins:id", "made .* of the sample"),
    ],
)
def test_functions_that_cannot_be_used(what, message):
    with pytest.raises(ConfigError, match=message):
        preprocessed(samples(), what)
