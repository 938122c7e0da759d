"""Prompts tokenised once over all processes: the same facts on every rank, few ids kept, errors and stops that end it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from infini_eval.config import EvalConfig
from infini_eval.datasets.parquet import load_samples
from infini_eval.distributed.launch import launch
from infini_eval.distributed.shutdown import Interrupted
from infini_eval.errors import EXIT_INTERRUPTED, DataError
from infini_eval.evaluation import preparing
from infini_eval.evaluation.preparing import prepare_samples, with_ids
from infini_eval.tasks.passkey import TASK
from infini_eval.testing.distributed import run_distributed_test

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
        prepared = prepare_samples(TASK, backend, samples(), world)
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
    monkeypatch.setattr(preparing, "KEPT_BYTES", 2 * 4 * 1100)  # two prompts of 1,008 tokens
    with launch("cpu") as world:
        backend = Counting(world)
        prepared = prepare_samples(TASK, backend, samples(), world)
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
            prepare_samples(TASK, backend, samples(), world)
        assert backend.prepared == 0


def fail_on_rank_1():
    with launch("cpu") as world:
        prepare_samples(TASK, Counting(world, bad=samples()[1].id), samples(), world)
    return "unreached"


@pytest.mark.distributed
def test_an_error_in_one_ranks_share_ends_all_as_a_users_error():
    with pytest.raises(AssertionError, match="ended with status 2"):
        run_distributed_test(fail_on_rank_1, 2, None)


def stop_on_rank_1():
    with launch("cpu") as world:
        if world.rank == 1:
            world.stop.ask("the test")
        prepare_samples(TASK, Counting(world), samples(), world)
    return "unreached"


@pytest.mark.distributed
def test_a_stop_of_one_rank_ends_the_others_waiting_for_its_share():
    with pytest.raises(AssertionError, match=f"ended with status {EXIT_INTERRUPTED}"):
        run_distributed_test(stop_on_rank_1, 2, None)
