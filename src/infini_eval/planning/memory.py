"""Bytes on each rank at one context length and topology: weights, state, activations, logits, host, reserve."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from infini_eval.distributed.mesh import MeshShape, cut_into_stages
from infini_eval.engine.batching import CHUNK_TOKENS
from infini_eval.planning.activations import AttentionKernel, Phase, StepShape, heaviest_phase, logit_bytes, steps_of
from infini_eval.planning.architecture import Architecture
from infini_eval.planning.devices import Device
from infini_eval.planning.weights import StateBytes, bits_of, stage_weight_bytes, state_blocks, state_bytes

# glibc serves larger blocks by mmap and gives them back at once (DEFAULT_MMAP_THRESHOLD_MAX on 64 bits); the threshold
# of smaller ones rises to the largest that was ever freed, after which they come from the heap.
HEAP_BLOCK = 32 << 20
# Code of torch's libraries that is paged in when they first compute, beside some workspaces: 11 to 31 MB were measured
# with models of width 64 (native and transformers, fp32 and bf16), where nothing else counts.
LIBRARIES = 20_000_000
BLOCKS = 3 << 22  # a block of a weight file, converted, and its mask


def allocator_bytes(blocks: Iterable[float]) -> int:
    """Freed heap between live blocks: half of what is alive in blocks of the heap.

    Knuth's fifty-percent rule (The Art of Computer Programming, 2.5): where blocks of various sizes come and go and free
    neighbours are joined, as in glibc, there is one hole for every two live blocks.
    """
    return round(sum(block for block in blocks if block < HEAP_BLOCK) / 2)


def unread_bytes(architecture: Architecture, dtype: str, quantizer: str, tp: int = 1) -> int:
    """The head during the first step: transformers maps its files, and these pages come with the first logits."""
    mapped = architecture.engine != "native" and architecture.dtype == dtype and quantizer == "none" and tp == 1
    return architecture.head_parameters * bits_of(dtype) // 8 if mapped else 0


def loading_bytes(architecture: Architecture, layers: range, dtype: str, tp: int = 1) -> int:
    """The most that loading a stage into host memory holds beyond the weights themselves."""
    saved, value = bits_of(architecture.dtype) / 8, bits_of(dtype) / 8
    if architecture.engine != "native":  # the files' pages stay mapped while their values are converted
        return 0 if saved == value else stage_weight_bytes(architecture, layers, architecture.dtype, "none", tp)
    return max(0, *(round(moment) for moment in _native_moments(architecture, layers, saved, value, tp)))


def _native_moments(architecture: Architecture, layers: range, saved: float, value: float, tp: int) -> Iterator[float]:
    """Embedding and head come first, then the layers: what reading a tensor adds to it, less the weights still to come.

    checkpoint/reader.py maps the file while it copies it by blocks, so its pages stand beside the tensor; the rows of q
    and k may be put into another order, which copies them once more.
    """
    rest = sum(architecture.layers[index].parameters for index in layers) / tp
    last = architecture.layers[layers.stop - 1]
    head = architecture.head_parameters / tp if layers.stop == len(architecture.layers) else 0.0
    embedding = architecture.embedding_parameters / tp if layers.start == 0 else 0.0
    projections = (last.query / 2 + last.kv) / tp
    in_order = [
        (embedding * saved, head + rest),
        (head * saved, rest),
        (projections * (saved + value), (last.query / 2 + last.mlp) / tp),  # q, k and v
        (last.mlp * 2 / 3 / tp * saved, last.mlp / 3 / tp),  # gate and up
        (last.mlp / 3 / tp * saved, 0.0),  # down
    ]
    for beside, still_to_come in in_order:
        yield beside + BLOCKS - still_to_come * value


TRANSFORMERS_CHUNK = 4096  # tokens of a step of long prompts: more cost activations for all of them


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
    """Bytes on every rank of one pipeline stage (its tp shards and replicas are alike).

    `allocator` (freed blocks that the host's allocator keeps), `libraries` (their code) and `loading` (beyond the weights,
    while they are read, before anything else exists) are counted where the device is the host's own memory.
    """

    stage: int
    layers: range
    weights: int
    state: StateBytes
    activations: int
    logits: int
    prefix_cache: int
    allocator: int
    libraries: int
    loading: int
    reserve: int
    capacity: int

    @property
    def planned(self) -> int:
        """Without the reserve: the peak that a measurement should show."""
        return self.weights + self.libraries + max(self.loading, self.working)

    @property
    def working(self) -> int:
        """Tensors and freed blocks beside the weights, while a batch is answered."""
        return self.state.total + self.activations + self.logits + self.prefix_cache + self.allocator

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
    costs = [layer.active_parameters for layer in architecture.layers]
    return cut_into_stages(costs, architecture.hidden_size, architecture.vocab_size, stages)


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
    layers, last = stages[index], index == len(stages) - 1
    in_flight = settings.batches_in_flight or (mesh.pp if architecture.engine == "native" else 1)
    weights = stage_weight_bytes(architecture, layers, dtype, settings.quantization, mesh.tp)
    step = _step(architecture, context, device, mesh, settings)
    state = _state(architecture, step, layers, in_flight)
    steps = _steps(architecture, context, device, mesh, settings)
    activations, phase = _heaviest(
        architecture, steps, layers, in_flight, _unread(architecture, device, step, settings)
    )
    kept = min(settings.kept_bytes, (settings.kept_prefixes or 0) * state.memory // (settings.batch * in_flight))
    logits = logit_bytes(architecture, rows=settings.batch, tp=mesh.tp) if last else 0
    allocator = libraries = loading = 0
    if device.kind == "cpu":
        blocks = state_blocks(state, len(layers), in_flight, architecture.keeps_memory)
        allocator = allocator_bytes([*phase, *blocks])
        libraries, loading = LIBRARIES, loading_bytes(architecture, layers, dtype, mesh.tp)
    plan = RankPlan(
        stage=index,
        layers=layers,
        weights=weights,
        state=state,
        activations=activations,
        logits=logits,
        prefix_cache=kept,
        allocator=allocator,
        libraries=libraries,
        loading=loading,
        reserve=0,
        capacity=device.capacity,
    )
    return replace(plan, reserve=device.reserve(plan.planned))


def _state(architecture: Architecture, step: StepShape, layers: range, in_flight: int) -> StateBytes:
    return state_bytes(
        architecture,
        step.context,
        kv_dtype=step.kv_dtype,
        memory_dtype=step.memory_dtype,
        layers=layers,
        tp=step.tp,
        batch=step.rows * in_flight,
        step_tokens=step.tokens,
    )


def _unread(architecture: Architecture, device: Device, step: StepShape, settings: Settings) -> int:
    if device.kind != "cpu":
        return 0
    return unread_bytes(architecture, step.dtype, settings.quantization, step.tp)


def _heaviest(
    architecture: Architecture, steps: list[StepShape], layers: range, in_flight: int, unread: int
) -> tuple[int, Phase]:
    """What the heaviest step needs beyond weights and the final state, and its tensors.

    An earlier step finds a shorter cache; before the first logits, `unread` bytes of the weights are not there yet.
    """
    final = _state(architecture, steps[-1], layers, in_flight).total
    found: list[tuple[float, Phase]] = []
    for each in (each for step in steps for each in steps_of(architecture, step)):
        phase = heaviest_phase(architecture, each)
        missing = final - _state(architecture, each, layers, in_flight).total
        missing += unread if each.context <= each.tokens else 0
        found.append((sum(phase) - missing, phase))
    needed, phase = max(found, key=lambda pair: pair[0])
    return max(0, round(needed)), phase


def _steps(
    architecture: Architecture, context: int, device: Device, mesh: MeshShape, settings: Settings
) -> list[StepShape]:
    """Steps of one row up to all of them where samples share a prefix: they are one row until they part."""
    rows = [settings.batch] if settings.kept_prefixes is None else range(1, settings.batch + 1)
    return [_step(architecture, context, device, mesh, replace(settings, batch=count)) for count in rows]


def _step(architecture: Architecture, context: int, device: Device, mesh: MeshShape, settings: Settings) -> StepShape:
    dtype = settings.dtype or architecture.dtype
    return StepShape(
        tokens=chunk_of(architecture, device, settings),
        context=context,
        rows=settings.batch,
        tp=mesh.tp,
        dtype=dtype,
        kv_dtype=settings.kv_dtype or dtype,
        memory_dtype=settings.memory_dtype,
        kernel=settings.kernel,
    )
