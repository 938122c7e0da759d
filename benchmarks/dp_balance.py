"""Eight replicas on the work queue, simulated: how much later the last one ends than a perfect division would."""

from __future__ import annotations

import heapq
import random
from collections import deque

from benchmarks._harness import Metric, gate
from infini_eval.distributed.mesh import Mesh
from infini_eval.distributed.work_queue import SPARE, WorkQueue
from infini_eval.engine.batching import plan_batches

USES_TORCH = False
REPLICAS = 8
LENGTHS = (1024, 2048, 4096, 8192, 16384, 32768)
DEPTHS = 21


def run(toy: bool) -> list[Metric]:
    samples = 5 if toy else 50
    grid = [length for length in LENGTHS for _ in range(DEPTHS * samples)]
    one = [1024] * (11 * samples)
    target = None if toy else 1.03
    return [
        Metric(
            "dp_balance",
            stretch(grid),
            "x",
            "<=",
            target,
            f"1k to 32k, {DEPTHS} depths x {samples} samples, dp={REPLICAS}",
        ),
        Metric("dp_balance_1k", stretch(one), "x", "<=", None, f"1k alone, 11 depths x {samples}: units of 8 rows"),
    ]


def stretch(lengths: list[int]) -> float:
    """Makespan / ideal when each free replica takes the next batch; a batch takes its cost, up to 10 % more or less.

    As in a run, a replica draws its next batch while it computes, as long as the queue has plenty.
    """
    batches = plan_batches(lengths, 1024)
    order = WorkQueue([batch.cost for batch in batches], Mesh()).order
    dealt = sorted(row for index in order for row in batches[index].rows)
    gate(dealt == list(range(len(lengths))), "the queue loses or repeats samples")
    draw = random.Random(0)
    seconds = [batch.cost * draw.uniform(0.9, 1.1) for batch in batches]
    queue, ends = deque(order), []
    free = [(0.0, replica) for replica in range(REPLICAS)]
    held: dict[int, int] = {}
    while free:
        time, replica = heapq.heappop(free)
        if replica not in held and not queue:
            ends.append(time)
            continue
        index = held.pop(replica) if replica in held else queue.popleft()
        heapq.heappush(free, (time + seconds[index], replica))
        if len(queue) > SPARE * REPLICAS:
            held[replica] = queue.popleft()
    return max(ends) / (sum(seconds) / REPLICAS)
