"""What rank 0 tells the others, and which states are kept for requests to come."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.config import ModelSettings, Sampling
from infini_eval.data.tokenizer import load_tokenizer
from infini_eval.distributed.announce import Announcer
from infini_eval.distributed.mesh import Mesh, MeshShape
from infini_eval.engine.native_model import load_replica
from infini_eval.engine.prefixes import border_digests, digest_at
from infini_eval.serve.replica import RECENT, Order, PrefixHistory, Replica
from infini_eval.serve.scheduler import Answer, Failure, Job, Scheduler
from infini_eval.testing.distributed import run_distributed_test
from infini_eval.testing.tiny_models import tiny_config, write_tiny_checkpoint
from support.limits import PROCESS_S


def test_an_order_arrives_as_it_was_sent():
    rows = [np.arange(5, dtype=np.int32), np.arange(3, dtype=np.int32)]
    sent = Order("answer", rows, ["0", "x/1"], Sampling(0.5, 3, 0.9, 7), 16, [(2, b"\x00\n\xff" * 5 + b"x")], [1, 2], 4)
    told = Order.unpacked(sent.packed())
    assert [row.tolist() for row in told.rows] == [row.tolist() for row in rows]
    assert told.sampling == sent.sampling and told.points == list(sent.points)
    assert (told.kind, told.names, told.max_new_tokens, told.counts, told.top) == (
        "answer",
        ["0", "x/1"],
        16,
        [1, 2],
        4,
    )
    assert Order.unpacked(Order("end").packed()).kind == "end"


def test_a_state_is_kept_where_a_prompt_ends_and_where_it_leaves_another():
    rng = np.random.default_rng(0)
    common = rng.integers(0, 9, 24)
    first, second = (border_digests(np.concatenate([common, rng.integers(0, 9, 20)]), 8) for _ in range(2))
    history = PrefixHistory()
    assert history.points([first]) == [(5, digest_at(first, 5))]
    assert sorted(history.points([second])) == [(3, digest_at(first, 3)), (5, digest_at(second, 5))]
    assert history.points([b""]) == []


def test_old_prompts_are_forgotten():
    history = PrefixHistory()
    prompts = [border_digests(np.full(8, number), 8) for number in range(RECENT + 1)]
    for prompt in prompts:
        history.points([prompt])
    assert history._recent.keys() == set(prompts[1:])


POISON = 1000
TOKENIZER = Path(__file__).resolve().parents[2] / "checkpoints/infini-demo/tokenizer"


def reports_with_a_poisoned_token(folder: str) -> list[str] | None:
    """On two ranks of tp: the reports of jobs of which some have a token that makes NaN."""
    rank = int(os.environ["RANK"])
    model = load_replica(Checkpoint(folder), ModelSettings(device="cpu"), Mesh.build(MeshShape(tp=2), rank), "cpu")
    if rank == 1:
        model.llama.embedding[POISON - 512] = float("nan")
    world = SimpleNamespace(world_size=2, is_main=rank == 0, timeout_s=600.0)
    replica = Replica(model, Announcer(world), frozenset(), 1024)
    if rank == 1:
        replica.follow()
        return None
    scheduler = Scheduler(replica, load_tokenizer(TOKENIZER), max_batch=4, max_queue=16)
    said: list = []
    asked = [(ids, top) for top in (None, 2) for ids in ([5, 6, 7], [5, POISON, 7], [5, 8, 7])]
    options = (Sampling(), 1, (), lambda job, report: said.append((job.name, report)))
    jobs = [
        Job(np.array(ids, np.int32), str(number), *options, top=top, echo=top is not None)
        for number, (ids, top) in enumerate(asked)
    ]
    scheduler.submit(jobs)
    scheduler.close()
    scheduler.work()
    replica.tell(Order("end"))
    return [type(report).__name__ for _, report in sorted(said, key=lambda pair: int(pair[0]))]


@pytest.mark.distributed
def test_over_several_ranks_a_row_that_becomes_nan_fails_alone(tmp_path):
    folder = write_tiny_checkpoint(tmp_path / "1", tiny_config(vocab_size=1024))
    found, none = run_distributed_test(reports_with_a_poisoned_token, 2, args=[str(folder)])
    good, bad = Answer.__name__, Failure.__name__
    assert found == [good, bad, good, good, bad, good] and none is None


class Silent:
    """In place of a replica: nothing is computed, what is told is noted."""

    segment_length = cache = None

    def __init__(self) -> None:
        self.announcer = self
        self.idle_s = 0.01
        self.told = threading.Event()

    def tell(self, order: Order) -> None:
        assert order.kind == "idle"
        self.told.set()


def test_without_requests_the_other_ranks_are_told_so(tokenizer):
    replica = Silent()
    scheduler = Scheduler(replica, tokenizer, max_batch=1, max_queue=1)
    thread = threading.Thread(target=scheduler.work)
    thread.start()
    assert replica.told.wait(PROCESS_S)
    scheduler.close()
    thread.join(PROCESS_S)
    assert not thread.is_alive()
