"""How processes share a Hugging Face model: replicas, or shards of one model; what cannot be is said before loading."""

from __future__ import annotations

from typing import Any

from infini_eval.config import LoadSettings, Topology
from infini_eval.distributed.mesh import MeshShape, ModelShape
from infini_eval.errors import TopologyError


def mesh_shape(asked: Topology, loading: LoadSettings, config: Any, world_size: int) -> MeshShape:
    """dp replicas by default, or one replica over all processes where --tp asks for it; TopologyError for anything else."""
    tp = asked.tp or 1
    valid = f"with {world_size} processes: {MeshShape(dp=world_size)}" + (
        f"; {MeshShape(tp=world_size)}" if world_size > 1 else ""
    )
    if (asked.pp or 1) > 1:
        raise TopologyError(f"--pp {asked.pp}: the backend transformers has no pipeline over processes", valid=valid)
    if tp not in (1, world_size) or (asked.dp or world_size // tp) != world_size // tp:
        given = " ".join(f"--{axis} {size}" for axis, size in (("dp", asked.dp), ("tp", asked.tp)) if size is not None)
        raise TopologyError(
            f"{given} with {world_size} processes",
            valid=valid,
            next_step=f"torchrun --nproc_per_node={tp} ..." if tp > 1 else None,
        )
    spread = loading.device_map or loading.max_memory or loading.offload_folder
    if world_size > 1 and (spread or (tp > 1 and loading.quantization)):
        flags = "--device-map, --max-memory, --offload-folder" if spread else "--quantization with --tp"
        raise TopologyError(
            f"{flags}: they place one model from one process, but there are {world_size}",
            next_step="start one process, or leave these flags out and use --tp",
        )
    if tp > 1:
        _check_split(config.get_text_config(), tp, valid)
    return MeshShape(dp=world_size // tp, tp=tp)


def _check_split(text: Any, tp: int, valid: str) -> None:
    if not getattr(text, "base_model_tp_plan", None):
        raise TopologyError(f"--tp {tp}: transformers has no tensor-parallel plan for {text.model_type}", valid=valid)
    heads = text.num_attention_heads
    kv_heads = getattr(text, "num_key_value_heads", None) or heads
    problem = ModelShape(1, heads, kv_heads, text.vocab_size, text.intermediate_size).tp_problem(tp)
    if problem is None and kv_heads % tp:
        problem = f"tp={tp} does not divide the model's {kv_heads} kv heads, which transformers does not replicate"
    if problem is not None:
        raise TopologyError(problem, valid=valid)
