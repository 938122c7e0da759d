"""The mesh: the sizes of its axes dp, tp and pp, the layers of each stage, a rank's place, and the process groups.

Ranks are numbered as nanotron does, tp fastest: rank = (pp_rank * dp + dp_rank) * tp + tp_rank. Importing this takes no
torch: the planner chooses topologies and cuts stages with the same functions.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from infini_eval.config import ModelConfig, Topology
from infini_eval.errors import TopologyError

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

logger = logging.getLogger(__name__)
LISTED = 8  # topologies that an error message names
HEAD_TOKENS = 1024  # prompt tokens for which the head computes one row


@dataclass(frozen=True)
class MeshShape:
    """Sizes of the mesh axes."""

    dp: int = 1
    tp: int = 1
    pp: int = 1

    @property
    def world_size(self) -> int:
        """The number of processes."""
        return self.dp * self.tp * self.pp

    def __str__(self) -> str:
        return f"--dp {self.dp} --tp {self.tp} --pp {self.pp}"

    def lines(self, axis: Literal["tp", "pp"]) -> list[tuple[int, ...]]:
        """List the global ranks of each line of the mesh along an axis, in order."""
        stride = 1 if axis == "tp" else self.tp * self.dp
        size = getattr(self, axis)
        starts = [rank for rank in range(self.world_size) if rank // stride % size == 0]
        return [tuple(range(start, start + stride * size, stride)) for start in starts]


@dataclass(frozen=True)
class ModelShape:
    """What of a model decides how it can be split."""

    num_layers: int
    num_heads: int
    num_kv_heads: int
    vocab_size: int
    intermediate_size: int

    @classmethod
    def of(cls, config: ModelConfig) -> ModelShape:
        """Take the sizes from a checkpoint's configuration."""
        return cls(
            num_layers=config.num_hidden_layers,
            num_heads=config.num_attention_heads,
            num_kv_heads=config.num_key_value_heads,
            vocab_size=config.vocab_size,
            intermediate_size=config.intermediate_size,
        )

    def tp_problem(self, tp: int) -> str | None:
        """Say why the model cannot be split over `tp` shards; None where it can."""
        for size, what in (
            (self.num_heads, "attention heads"),
            (self.vocab_size, "vocabulary entries"),
            (self.intermediate_size, "intermediate features"),
        ):
            if size % tp:
                return f"tp={tp} does not divide the model's {size} {what}"
        if self.num_kv_heads % tp and tp % self.num_kv_heads:
            return f"tp={tp} neither divides the model's {self.num_kv_heads} kv heads nor is a multiple of them"
        return None

    def pp_problem(self, pp: int) -> str | None:
        """Say why the model cannot be split over `pp` stages; None where it can."""
        return (
            f"pp={pp} stages need at least {pp} layers; the model has {self.num_layers}"
            if pp > self.num_layers
            else None
        )


def resolve_topology(
    asked: Topology, world_size: int, shape: ModelShape, *, saved_tp: int = 1, saved_pp: int = 1
) -> MeshShape:
    """Choose the mesh of a run: unset tp and pp take the checkpoint's value where it fits, else 1; dp is what remains.

    Args:
        asked: the sizes that the user gave.
        world_size: the number of processes.
        saved_tp, saved_pp: the topology that the checkpoint was saved with.

    Raises:
        TopologyError: a size that was asked for cannot be had; the message lists what fits.
    """
    _check_asked(asked, world_size, shape)
    left = world_size // ((asked.dp or 1) * (asked.tp or 1) * (asked.pp or 1))
    tp = asked.tp or _saved_or_one("tp", saved_tp, left, shape.tp_problem(saved_tp))
    left //= 1 if asked.tp else tp
    pp = asked.pp or _saved_or_one("pp", saved_pp, left, shape.pp_problem(saved_pp))
    mesh = MeshShape(dp=asked.dp or world_size // (tp * pp), tp=tp, pp=pp)
    if mesh.world_size != world_size:
        raise _misfit(f"{mesh} needs {mesh.world_size} processes, but there are {world_size}", asked, world_size, shape)
    return mesh


def fitting(world_size: int, shape: ModelShape) -> list[MeshShape]:
    """List every mesh of `world_size` processes that the model can be split over."""
    divisors = [size for size in range(1, world_size + 1) if world_size % size == 0]
    return [
        MeshShape(dp=world_size // (tp * pp), tp=tp, pp=pp)
        for pp in divisors
        for tp in divisors
        if world_size % (tp * pp) == 0 and not shape.tp_problem(tp) and not shape.pp_problem(pp)
    ]


def _check_asked(asked: Topology, world_size: int, shape: ModelShape) -> None:
    problem = shape.tp_problem(asked.tp or 1) or shape.pp_problem(asked.pp or 1)
    product = (asked.dp or 1) * (asked.tp or 1) * (asked.pp or 1)
    if problem is None and world_size % product:
        flags = " ".join(f"--{axis} {size}" for axis, size in _asked_sizes(asked).items())
        verb = "needs" if len(_asked_sizes(asked)) == 3 else "needs a multiple of"
        problem = f"{flags} {verb} {product} processes, but there are {world_size}"
    if problem is not None:
        raise _misfit(problem, asked, world_size, shape)


def _saved_or_one(axis: str, saved: int, left: int, problem: str | None) -> int:
    if left % saved == 0 and problem is None:
        return saved
    logger.info("the checkpoint was saved with %s=%d, which does not fit here: %s=1 is used", axis, saved, axis)
    return 1


def _asked_sizes(asked: Topology) -> dict[str, int]:
    return {axis: size for axis in ("dp", "tp", "pp") if (size := getattr(asked, axis)) is not None}


def _misfit(problem: str, asked: Topology, world_size: int, shape: ModelShape) -> TopologyError:
    """The error that lists what fits, nearest to what was asked first."""
    sizes = _asked_sizes(asked)
    choices = sorted(
        fitting(world_size, shape), key=lambda mesh: sum(getattr(mesh, axis) != size for axis, size in sizes.items())
    )
    listed = "; ".join(map(str, choices[:LISTED])) + ("; ..." if len(choices) > LISTED else "")
    next_step = "leave --dp, --tp and --pp out to let it choose"
    needed = (asked.dp or 1) * (asked.tp or 1) * (asked.pp or 1)
    if needed != world_size and not (shape.tp_problem(asked.tp or 1) or shape.pp_problem(asked.pp or 1)):
        next_step = f"start {needed} processes (torchrun --nproc_per_node={needed} on one node), or {next_step}"
    return TopologyError(problem, valid=f"with {world_size} processes: {listed}", next_step=next_step)


def stage_layers(config: ModelConfig, stages: int) -> list[range]:
    """Assign decoder layers to the pipeline stages of a nanotron model."""
    layer = config.head_dim * config.hidden_size * 2 * (config.num_attention_heads + config.num_key_value_heads)
    layer += 3 * config.hidden_size * config.intermediate_size
    return cut_into_stages([layer] * config.num_hidden_layers, config.hidden_size, config.vocab_size, stages)


def cut_into_stages(layer_costs: Sequence[float], hidden_size: int, vocab_size: int, stages: int) -> list[range]:
    """Cut layers into contiguous stages with the busiest one as light as it can be.

    Args:
        layer_costs: multiplications of each layer for one token. The embedding is added to the first layer and the
            head, which computes one row for many prompt tokens, to the last.
    """
    costs = [float(cost) for cost in layer_costs]
    costs[0] += hidden_size
    costs[-1] += vocab_size * hidden_size / HEAD_TOKENS
    return split_evenly(costs, stages)


def split_evenly(costs: Sequence[float], parts: int) -> list[range]:
    """Cut `costs` into `parts` contiguous non-empty ranges so that the largest sum is smallest (dynamic programming)."""
    count = len(costs)
    assert 1 <= parts <= count, "topology was checked before"
    prefix = [0.0]
    for cost in costs:
        prefix.append(prefix[-1] + cost)
    # best[stop] = (largest sum, cuts) of the cheapest split of costs[:stop] into `used` parts
    best = {stop: (prefix[stop], [stop]) for stop in range(1, count + 1)}
    for used in range(2, parts + 1):
        best = {
            stop: min(
                (max(best[cut][0], prefix[stop] - prefix[cut]), [*best[cut][1], stop]) for cut in range(used - 1, stop)
            )
            for stop in range(used, count + 1)
        }
    cuts = [0, *best[count][1]]
    return [range(start, stop) for start, stop in pairwise(cuts)]


@dataclass(frozen=True)
class Mesh:
    """One rank's view of the mesh. A group is None where its axis has size 1: nothing is to be sent then.

    `tp_group` and `pp_group` join the shards of a stage and the stages of a shard, on the device's backend;
    `pp_token_group` is a gloo group of the same stages for host tensors.
    """

    shape: MeshShape = MeshShape()
    rank: int = 0
    tp_group: ProcessGroup | None = None
    pp_group: ProcessGroup | None = None
    pp_token_group: ProcessGroup | None = None

    @classmethod
    def build(cls, shape: MeshShape, rank: int = 0) -> Mesh:
        """Make a rank's mesh with its process groups; every rank calls this, with the same shape."""
        return cls(
            shape,
            rank,
            tp_group=_new_group(shape, "tp"),
            pp_group=_new_group(shape, "pp"),
            pp_token_group=_new_group(shape, "pp", backend="gloo"),
        )

    @property
    def tp_rank(self) -> int:
        """The shard of each layer that this rank computes."""
        return self.rank % self.shape.tp

    @property
    def dp_rank(self) -> int:
        """The replica that this rank belongs to."""
        return self.rank // self.shape.tp % self.shape.dp

    @property
    def pp_rank(self) -> int:
        """The stage that this rank computes."""
        return self.rank // (self.shape.tp * self.shape.dp)

    @property
    def is_leader(self) -> bool:
        """Whether this rank speaks for its replica: first stage, first shard."""
        return self.tp_rank == 0 and self.pp_rank == 0

    @property
    def tag(self) -> str:
        """This rank in log lines."""
        return f"DP={self.dp_rank}|PP={self.pp_rank}|TP={self.tp_rank}"

    @property
    def pp_ranks(self) -> tuple[int, ...]:
        """Global ranks of the stages with our dp and tp rank, in order."""
        return next(line for line in self.shape.lines("pp") if self.rank in line)


def _new_group(shape: MeshShape, axis: Literal["tp", "pp"], backend: str | None = None) -> ProcessGroup | None:
    """Make the groups of all lines along an axis, as torch demands of every rank; returns the one with this rank."""
    if getattr(shape, axis) == 1:
        return None
    import torch.distributed as dist

    group: ProcessGroup | None
    group, _ = dist.new_subgroups_by_enumeration(shape.lines(axis), backend=backend)
    return group
