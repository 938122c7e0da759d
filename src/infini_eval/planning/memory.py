"""Bytes on each rank at one context length and topology: weights, state, activations, logits, reserve."""

from __future__ import annotations

from dataclasses import dataclass, replace

from infini_eval.distributed.stages import PREFILL_CHUNK, split_evenly
from infini_eval.distributed.topology import MeshShape
from infini_eval.engine.batching import CHUNK_TOKENS
from infini_eval.planning.activations import AttentionKernel, StepShape, activation_bytes, logit_bytes
from infini_eval.planning.architecture import Architecture
from infini_eval.planning.cache import StateBytes, state_bytes
from infini_eval.planning.devices import Device
from infini_eval.planning.weights import stage_weight_bytes

TRANSFORMERS_CHUNK = 4096  # prefill_chunk_size of long prompts


@dataclass(frozen=True)
class Settings:
    """How a model is run. None means: as the model's configuration says, or as the engine chooses.

    `batch` sequences are computed together; `batches_in_flight` fills the stages of a pipeline (None: one a stage for
    the native engine, else 1). `prefill_chunk` is in tokens of each row. `kept_prefixes`: states of shared prefixes that
    each rank keeps, of `kept_bytes` at most (None: samples share nothing).
    """

    dtype: str | None = None
    kv_dtype: str | None = None
    memory_dtype: str = "float32"
    quantization: str = "none"
    kernel: AttentionKernel = "sdpa"
    batch: int = 1
    batches_in_flight: int | None = None
    prefill_chunk: int | None = None
    kept_prefixes: int | None = None
    kept_bytes: int = 0


@dataclass(frozen=True)
class RankPlan:
    """Bytes on every rank of one pipeline stage (its tp shards and replicas are alike)."""

    stage: int
    layers: range
    weights: int
    state: StateBytes
    activations: int
    logits: int
    reserve: int
    capacity: int
    prefix_cache: int = 0

    @property
    def planned(self) -> int:
        """Without the reserve: what a measurement of the allocator should show."""
        return self.weights + self.state.total + self.activations + self.logits + self.prefix_cache

    @property
    def total(self) -> int:
        return self.planned + self.reserve

    @property
    def fits(self) -> bool:
        return self.total <= self.capacity


def plan_stages(
    architecture: Architecture, context: int, device: Device, mesh: MeshShape, settings: Settings
) -> list[RankPlan]:
    """A RankPlan for each pipeline stage, at `context` tokens of prompt and answer."""
    stages = stages_of(architecture, mesh.pp)
    return [_plan_stage(architecture, context, device, mesh, settings, index, stages) for index in range(mesh.pp)]


def stages_of(architecture: Architecture, stages: int) -> list[range]:
    """The layers of each stage, cut as the engine cuts them."""
    costs = [float(layer.active_parameters) for layer in architecture.layers]
    costs[0] += architecture.hidden_size
    costs[-1] += architecture.vocab_size * architecture.hidden_size / PREFILL_CHUNK
    return split_evenly(costs, stages)


def chunk_of(architecture: Architecture, device: Device, settings: Settings) -> int:
    """New tokens of each row in one prefill step."""
    if architecture.engine != "native":
        return settings.prefill_chunk or TRANSFORMERS_CHUNK
    chunk = settings.prefill_chunk or max(1, CHUNK_TOKENS[device.kind] // settings.batch)
    segment = next((layer.window for layer in architecture.layers if layer.attention == "infini"), None)
    return chunk if segment is None else max(1, chunk // segment) * segment  # whole segments, at least one


def _plan_stage(
    architecture: Architecture,
    context: int,
    device: Device,
    mesh: MeshShape,
    settings: Settings,
    index: int,
    stages: list[range],
) -> RankPlan:
    dtype = settings.dtype or architecture.dtype
    kv_dtype = settings.kv_dtype or dtype
    layers = stages[index]
    in_flight = settings.batches_in_flight or (mesh.pp if architecture.engine == "native" else 1)
    weights = stage_weight_bytes(architecture, layers, dtype, settings.quantization, mesh.tp)
    state = state_bytes(
        architecture,
        context,
        kv_dtype=kv_dtype,
        memory_dtype=settings.memory_dtype,
        layers=layers,
        tp=mesh.tp,
        batch=settings.batch * in_flight,
    )

    def step_of(rows: int) -> StepShape:
        return StepShape(
            tokens=chunk_of(architecture, device, replace(settings, batch=rows)),
            context=context,
            rows=rows,
            tp=mesh.tp,
            dtype=dtype,
            kv_dtype=kv_dtype,
            memory_dtype=settings.memory_dtype,
            kernel=settings.kernel,
        )

    # samples that share a prefix are one row up to where they part
    rows = [settings.batch] if settings.kept_prefixes is None else range(1, settings.batch + 1)
    activations = max(activation_bytes(architecture, step_of(count)) for count in rows)
    last = index == len(stages) - 1
    logits = logit_bytes(architecture, rows=settings.batch, tp=mesh.tp) if last else 0
    kept = min(settings.kept_bytes, (settings.kept_prefixes or 0) * state.memory // (settings.batch * in_flight))
    reserve = device.reserve(weights + state.total + activations + logits + kept)
    return RankPlan(index, layers, weights, state, activations, logits, reserve, device.capacity, kept)
