"""One rank's part of a replica: its topology from the checkpoint and the world, its shard, its stage, its links."""

from __future__ import annotations

import torch

from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.config import ModelConfig, ModelSettings, Topology
from infini_eval.distributed.mesh import Mesh, MeshShape, ModelShape, resolve_topology, stage_layers
from infini_eval.distributed.tensor_parallel import TensorParallel
from infini_eval.engine.links import Links
from infini_eval.engine.native_model import NativeModel


def mesh_shape(checkpoint: Checkpoint, asked: Topology, world_size: int) -> MeshShape:
    """Choose the mesh for a checkpoint; TopologyError, listing what fits, where a size asked for cannot be had."""
    saved = {"saved_tp": checkpoint.saved_tp, "saved_pp": checkpoint.saved_pp}
    return resolve_topology(asked, world_size, ModelShape.of(checkpoint.config), **saved)


def my_layers(config: ModelConfig, mesh: Mesh) -> range:
    """The decoder layers of this rank's stage."""
    return stage_layers(config, mesh.shape.pp)[mesh.pp_rank]


def load_replica(checkpoint: Checkpoint, settings: ModelSettings, mesh: Mesh, device: str) -> NativeModel:
    """Load what this rank computes: its tensor-parallel shard of its stage's layers."""
    tensor_parallel = TensorParallel(mesh.tp_rank, mesh.shape.tp, mesh.tp_group)
    links = Links(mesh.pp_rank, mesh.shape.pp, mesh.pp_ranks, mesh.pp_group, mesh.pp_token_group)
    return NativeModel.load(
        checkpoint,
        settings,
        tensor_parallel=tensor_parallel,
        links=links,
        layers=my_layers(checkpoint.config, mesh),
        device=torch.device(device),
    )
