"""A grid of lengths, depths and samples on some GPUs: topology, memory, time by the simulated queue, and what stands idle.

Time of a batch: its rows' prefill and its new tokens as `infini_eval.planning.plan` computes them, at a stated share of the
device's peak; batches, their order and the dealing are the engine's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import _queue
from infini_eval.api.backend import Batch
from infini_eval.distributed.mesh import MeshShape, fitting
from infini_eval.engine.batching import plan_batches
from infini_eval.planning.architecture import Architecture
from infini_eval.planning.devices import Device
from infini_eval.planning.memory import Settings, plan_stages
from infini_eval.planning.plan import Speed, Workload, estimate_speed, model_shape, prefill_flops

K, M = 1 << 10, 1 << 20


@dataclass(frozen=True)
class Grid:
    """What is asked: `samples` samples at each depth and length, `new_tokens` new tokens each."""

    lengths: tuple[int, ...] = (K, 4 * K, 16 * K, 64 * K, 256 * K, M)
    depths: int = 21
    samples: int = 50
    new_tokens: int = 15

    @property
    def prompts(self) -> list[int]:
        """The length of each prompt."""
        return [length for length in self.lengths for _ in range(self.depths * self.samples)]

    @property
    def tokens(self) -> int:
        return sum(self.prompts)


@dataclass(frozen=True)
class Cost:
    """A grid at one utilisation of the peak. Seconds of wall clock; `ideal` is without idle replicas."""

    utilisation: float
    seconds: float
    ideal: float
    gpu_hours: float
    longest_seconds: float
    longest_ideal: float
    one_longest: float

    @property
    def idle(self) -> float:
        """The share of the replicas' time that the queue's end leaves unused, over the whole grid."""
        return 1 - self.ideal / self.seconds

    @property
    def idle_longest(self) -> float:
        """The same where the longest prompts are all there is."""
        return 1 - self.longest_ideal / self.longest_seconds


def segment_length(architecture: Architecture) -> int | None:
    return architecture.layers[0].window


def batches_of(architecture: Architecture, lengths: Sequence[int]) -> list[Batch]:
    return plan_batches(lengths, segment_length(architecture))


def rank_bytes(architecture: Architecture, grid: Grid, device: Device, mesh: MeshShape) -> int:
    """Bytes of the fullest rank over all batches of the grid, reserve included."""
    rows = {length: len(batches_of(architecture, [length] * 8)[0].rows) for length in grid.lengths}
    return max(
        rank.total
        for length, batch in rows.items()
        for rank in plan_stages(architecture, length + grid.new_tokens, device, mesh, Settings(batch=batch))
    )


def smallest_replica(architecture: Architecture, grid: Grid, device: Device, most: int) -> MeshShape | None:
    """The fewest GPUs that hold one replica, as tp inside a node before pp; None where `most` are too few."""
    for size in (size for size in (1, 2, 4, 8, 16, 32, 64) if size <= most):
        choices = [mesh for mesh in fitting(size, model_shape(architecture)) if mesh.dp == 1 and mesh.tp <= 8]
        for mesh in sorted(choices, key=lambda mesh: -mesh.tp):
            if rank_bytes(architecture, grid, device, mesh) <= device.capacity:
                return mesh
    return None


def speed_of(
    architecture: Architecture, length: int, device: Device, mesh: MeshShape, utilisation: float, rows: int = 1
) -> Speed:
    """The planner's estimate for one prompt; a batch's rows read the weights together while decoding."""
    state = plan_stages(architecture, length, device, MeshShape(), Settings(batch=rows))[0].state.total
    speed = estimate_speed(
        architecture, length, device, mesh, Workload(utilisation=utilisation), weights=("bfloat16", "none"), state_bytes=state
    )  # fmt: skip
    assert speed is not None, "the device's peak is not known"
    return speed


def batch_seconds(
    architecture: Architecture, batch: Batch, grid: Grid, device: Device, mesh: MeshShape, utilisation: float
) -> float:
    rows = len(batch.rows)
    speed = speed_of(architecture, batch.cost // rows, device, mesh, utilisation, rows)
    return rows * speed.prefill_seconds + grid.new_tokens * speed.decode_seconds_per_token


def cost_of(
    architecture: Architecture, grid: Grid, device: Device, gpus: int, replica: MeshShape, utilisation: float
) -> Cost:
    """The grid in one run on all replicas, from the simulated queue."""
    replicas = gpus // replica.world_size
    known: dict[tuple[int, int], float] = {}

    def seconds_of(batch: Batch) -> float:
        key = (batch.cost, len(batch.rows))
        if key not in known:
            known[key] = batch_seconds(architecture, batch, grid, device, replica, utilisation)
        return known[key]

    def run(lengths: Sequence[int]) -> tuple[float, float]:
        batches = batches_of(architecture, lengths)
        seconds = _queue.disturbed([seconds_of(batch) for batch in batches])
        order = _queue.queue_order([batch.cost for batch in batches])
        return _queue.makespan(seconds, order, replicas), sum(seconds) / replicas

    longest = max(grid.lengths)
    whole, ideal = run(grid.prompts)
    alone, alone_ideal = run([longest] * (grid.depths * grid.samples))
    one = seconds_of(Batch((0,), longest))
    return Cost(utilisation, whole, ideal, whole * gpus / 3600, alone, alone_ideal, one)


def total_flops(architecture: Architecture, grid: Grid) -> float:
    """Prefill of the whole grid."""
    each = grid.depths * grid.samples
    return sum(each * prefill_flops(architecture, length).total for length in grid.lengths)


def bubble(chunks: int, stages: int) -> float:
    """The share of a lone prompt's time in which a pipeline's stages wait: (pp - 1) / (chunks + pp - 1)."""
    return (stages - 1) / (chunks + stages - 1)


def prefix_saving(depths: int) -> float:
    """How much less is read where all depths of a haystack share it: each needle's prompt is read from its depth on only.

    Cold: `depths` whole prompts. As a tree: the haystack once, and from each evenly spaced depth to the end.
    """
    rest = sum(1 - index / (depths - 1) for index in range(depths)) if depths > 1 else 0.0
    return depths / (1 + rest)
