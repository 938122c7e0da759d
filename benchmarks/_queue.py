"""The work queue, simulated: batches go to replicas in the real queue's order, as they are asked for."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Sequence

from infini_eval.distributed.mesh import Mesh
from infini_eval.distributed.work_queue import SPARE, WorkQueue

SPREAD = 0.1  # a batch takes its cost, up to this share more or less


def queue_order(costs: Sequence[float]) -> list[int]:
    """The order in which the real queue deals batches of these costs."""
    return WorkQueue(costs, Mesh()).order


def makespan(seconds: Sequence[float], order: Sequence[int], replicas: int) -> float:
    """When the last replica ends, batch `i` taking `seconds[i]`.

    As in a run, a replica draws its next batch while it computes, as long as the queue has plenty.
    """
    waiting, last = deque(order), 0.0
    held: dict[int, int] = {}
    free = [(0.0, replica) for replica in range(replicas)]
    while free:
        now, replica = heapq.heappop(free)
        if replica not in held and not waiting:
            last = max(last, now)
            continue
        index = held.pop(replica) if replica in held else waiting.popleft()
        heapq.heappush(free, (now + seconds[index], replica))
        if len(waiting) > SPARE * replicas:
            held[replica] = waiting.popleft()
    return last


def disturbed(costs: Sequence[float], seed: int = 0) -> list[float]:
    """What the batches really take."""
    draw = random.Random(seed)
    return [cost * draw.uniform(1 - SPREAD, 1 + SPREAD) for cost in costs]


def stretch(costs: Sequence[float], replicas: int) -> float:
    """Makespan over what a perfect division of the same work would take."""
    seconds = disturbed(costs)
    return makespan(seconds, queue_order(costs), replicas) / (sum(seconds) / replicas)
