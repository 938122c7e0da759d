"""Eight replicas on the work queue, simulated: how much later the last one ends than a perfect division would."""

from __future__ import annotations

from benchmarks import _queue
from benchmarks._harness import Metric, gate
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


def stretch(lengths: list[int], replicas: int = REPLICAS) -> float:
    """Makespan / ideal when each free replica takes the next batch; a batch takes its cost, up to 10 % more or less."""
    batches = plan_batches(lengths, 1024)
    costs = [batch.cost for batch in batches]
    dealt = sorted(row for index in _queue.queue_order(costs) for row in batches[index].rows)
    gate(dealt == list(range(len(lengths))), "the queue loses or repeats samples")
    return _queue.stretch(costs, replicas)
