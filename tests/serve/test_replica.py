"""What rank 0 tells the others, and which states are kept for requests to come."""

from __future__ import annotations

import threading

import numpy as np

from infini_eval.config import Sampling
from infini_eval.engine.prefixes import border_digests, digest_at
from infini_eval.serve.replica import RECENT, Order, PrefixHistory
from infini_eval.serve.scheduler import Scheduler
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
