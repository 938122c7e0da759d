"""Sizes of the mesh axes from what was asked, what the checkpoint was saved with, and what fits. No torch here."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from infini_eval.config import Topology
from infini_eval.errors import TopologyError

logger = logging.getLogger(__name__)
LISTED = 8


@dataclass(frozen=True)
class MeshShape:
    """Sizes of the mesh axes; their product is the number of processes."""

    dp: int = 1
    tp: int = 1
    pp: int = 1

    @property
    def world_size(self) -> int:
        return self.dp * self.tp * self.pp

    def __str__(self) -> str:
        return f"--dp {self.dp} --tp {self.tp} --pp {self.pp}"


@dataclass(frozen=True)
class ModelShape:
    """What of a model decides how it can be split."""

    num_layers: int
    num_heads: int
    num_kv_heads: int
    vocab_size: int
    intermediate_size: int

    def tp_problem(self, tp: int) -> str | None:
        """Why the model cannot be split over `tp` shards; None where it can."""
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
        """Why the model cannot be split over `pp` stages; None where it can."""
        return (
            f"pp={pp} stages need at least {pp} layers; the model has {self.num_layers}"
            if pp > self.num_layers
            else None
        )


def resolve_topology(
    asked: Topology, world_size: int, *, saved_tp: int = 1, saved_pp: int = 1, **model: Any
) -> MeshShape:
    """The mesh that a run uses (DESIGN 7); `model` has the fields of ModelShape.

    Unset tp and pp take the checkpoint's value where it fits, else 1; unset dp is what remains. TopologyError, listing
    what fits, for values asked for that cannot be had.
    """
    shape = ModelShape(**model)
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
    """Every mesh of `world_size` processes that the model can be split over."""
    divisors = [size for size in range(1, world_size + 1) if world_size % size == 0]
    return [
        MeshShape(dp=world_size // (tp * pp), tp=tp, pp=pp)
        for pp in divisors
        for tp in divisors
        if world_size % (tp * pp) == 0 and not shape.tp_problem(tp) and not shape.pp_problem(pp)
    ]


def kv_replication(num_kv_heads: int, tp: int) -> int:
    """How many shards hold the same kv head: 1 unless there are fewer kv heads than shards."""
    return max(1, tp // num_kv_heads)


def _check_asked(asked: Topology, world_size: int, shape: ModelShape) -> None:
    problem = shape.tp_problem(asked.tp or 1) or shape.pp_problem(asked.pp or 1)
    product = (asked.dp or 1) * (asked.tp or 1) * (asked.pp or 1)
    if problem is None and world_size % product:
        given = " ".join(f"--{axis} {size}" for axis, size in _given(asked).items())
        verb = "needs" if len(_given(asked)) == 3 else "needs a multiple of"
        problem = f"{given} {verb} {product} processes, but there are {world_size}"
    if problem is not None:
        raise _misfit(problem, asked, world_size, shape)


def _saved_or_one(axis: str, saved: int, left: int, problem: str | None) -> int:
    if left % saved == 0 and problem is None:
        return saved
    logger.info("the checkpoint was saved with %s=%d, which does not fit here: %s=1 is used", axis, saved, axis)
    return 1


def _given(asked: Topology) -> dict[str, int]:
    return {axis: size for axis in ("dp", "tp", "pp") if (size := getattr(asked, axis)) is not None}


def _misfit(problem: str, asked: Topology, world_size: int, shape: ModelShape) -> TopologyError:
    """What fits, nearest to what was asked first."""
    given = _given(asked)
    choices = sorted(
        fitting(world_size, shape), key=lambda mesh: sum(getattr(mesh, axis) != size for axis, size in given.items())
    )
    listed = "; ".join(map(str, choices[:LISTED])) + ("; ..." if len(choices) > LISTED else "")
    others = "leave --dp, --tp and --pp out to let it choose"
    needed = (asked.dp or 1) * (asked.tp or 1) * (asked.pp or 1)
    if needed != world_size and not (shape.tp_problem(asked.tp or 1) or shape.pp_problem(asked.pp or 1)):
        others = f"start {needed} processes (torchrun --nproc_per_node={needed} on one node), or {others}"
    return TopologyError(problem, valid=f"with {world_size} processes: {listed}", next_step=others)
