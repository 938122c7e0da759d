"""The mesh of backends whose processes are alike: data parallel only."""

from __future__ import annotations

from infini_eval.config import Topology
from infini_eval.distributed.launch import World
from infini_eval.distributed.mesh import Mesh, MeshShape
from infini_eval.errors import TopologyError


def data_parallel_mesh(asked: Topology, world: World, backend: str) -> Mesh:
    """Every process is a replica; TopologyError where something else is asked for."""
    size = world.world_size
    if (asked.tp or 1) > 1 or (asked.pp or 1) > 1 or (asked.dp or size) != size:
        given = " ".join(f"--{axis} {n}" for axis in ("dp", "tp", "pp") if (n := getattr(asked, axis)) is not None)
        raise TopologyError(
            f"{given}: the backend {backend} is only asked from several processes, it is not split over them",
            valid=f"with {size} processes: --dp {size} --tp 1 --pp 1",
            next_step="leave --dp, --tp and --pp out",
        )
    return Mesh.build(MeshShape(dp=size), world.rank)
