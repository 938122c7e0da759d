"""The plan of a model on a set of devices: what each context needs, what fits, and how the devices are best used."""

from __future__ import annotations

from dataclasses import dataclass

from infini_eval.config import Topology
from infini_eval.distributed.mesh import MeshShape, ModelShape, fitting, resolve_topology
from infini_eval.planning.architecture import Architecture, Layer
from infini_eval.planning.devices import Device
from infini_eval.planning.memory import RankPlan, Settings, chunk_of, plan_stages
from infini_eval.planning.weights import StateBytes, state_bytes, total_weight_bytes


@dataclass(frozen=True)
class Flops:
    """FLOPs by part; a multiplication and its addition are two."""

    projections: float
    attention: float
    memory: float
    head: float = 0.0

    @property
    def total(self) -> float:
        return self.projections + self.attention + self.memory + self.head


def flops_a_token(architecture: Architecture, context: int) -> Flops:
    """Mean over the tokens of a prompt of `context` tokens, without the head."""
    attention = sum(_attention(architecture, layer, context) for layer in architecture.layers)
    memory = sum(_memory(architecture, layer) for layer in architecture.layers)
    return Flops(2.0 * architecture.active_parameters, attention, memory)


def prefill_flops(architecture: Architecture, context: int) -> Flops:
    """A whole prompt; the head computes its last position only."""
    one = flops_a_token(architecture, context)
    head = 2.0 * architecture.vocab_size * architecture.hidden_size
    return Flops(one.projections * context, one.attention * context, one.memory * context, head)


def keys_seen(layer: Layer, context: int) -> float:
    """Keys that a query sees on average over a prompt of `context` tokens."""
    window = min(layer.window or context, context)
    if layer.attention == "sliding":  # the first `window` queries see half a window, all others a whole one
        return window * (context - window / 2) / context
    return window / 2


def _attention(architecture: Architecture, layer: Layer, context: int) -> float:
    return 4.0 * keys_seen(layer, context) * architecture.num_heads * architecture.head_dim


def _memory(architecture: Architecture, layer: Layer) -> float:
    """Each query and each key reads the memory, each key and value is written: d x (d + 1) values a head."""
    if layer.attention != "infini" or not architecture.keeps_memory:
        return 0.0
    matrix = 2.0 * architecture.head_dim * (architecture.head_dim + 1)
    return matrix * (architecture.num_heads + 2 * architecture.num_kv_heads)


BANDWIDTH_UTILISATION = 0.6  # of the memory's bandwidth while decoding: an estimate
DEFAULT_UTILISATION = 0.4  # of the dense bf16 peak during prefill: an estimate, --utilisation states another


@dataclass(frozen=True)
class Speed:
    """Of one sample on one replica: seconds of its prefill, of each new token, of all; and GPU-hours of the run."""

    prefill_flops: float
    prefill_seconds: float
    decode_seconds_per_token: float
    seconds_per_sample: float
    gpu_hours: float


@dataclass(frozen=True)
class Workload:
    """What is asked: `samples` samples with `new_tokens` new tokens each, at a `utilisation` of the peak."""

    samples: int = 1
    new_tokens: int = 15
    utilisation: float = DEFAULT_UTILISATION


def estimate_speed(
    architecture: Architecture,
    context: int,
    device: Device,
    mesh: MeshShape,
    work: Workload,
    *,
    weights: tuple[str, str],
    state_bytes: int,
) -> Speed | None:
    """Time of the work; None where the device's peak is not known. `weights` is (dtype, quantization).

    tp and pp share a prefill (pp over chunks of the sequence); a new token passes the stages one after the other, so
    only tp shares it. Replicas (dp) share the samples, which leaves the GPU-hours as they are.
    """
    if device.flops is None or device.bandwidth is None:
        return None
    flops = prefill_flops(architecture, context).total
    prefill = flops / (device.flops * work.utilisation * mesh.tp * mesh.pp)
    active = architecture.active_parameters + architecture.vocab_size * architecture.hidden_size
    read = total_weight_bytes(architecture, *weights) * active / architecture.total_parameters + state_bytes
    token = read / (device.bandwidth * BANDWIDTH_UTILISATION * mesh.tp)
    sample = prefill + token * work.new_tokens
    hours = sample * work.samples * mesh.tp * mesh.pp / 3600
    return Speed(flops, prefill, token, sample, hours)


COUNTS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64, 96, 128)
UNLIMITED = 1 << 34  # tokens; what fits there fits at any length that anybody has


@dataclass(frozen=True)
class ContextPlan:
    """One context length. `state` is of one batch over the whole model; `ranks` has one entry a pipeline stage.

    `recommended` is the topology of these devices to use (None where none fits); `longest` the longest context that
    fits `mesh`, None where length makes no difference, 0 where not even one token fits.
    """

    context: int
    mesh: MeshShape
    ranks: tuple[RankPlan, ...]
    state: StateBytes
    recommended: MeshShape | None
    longest: int | None
    speed: Speed | None
    devices_needed: int | None

    @property
    def fits(self) -> bool:
        return all(rank.fits for rank in self.ranks)

    @property
    def busiest(self) -> RankPlan:
        return max(self.ranks, key=lambda rank: rank.total)


@dataclass(frozen=True)
class Plan:
    """A model on `count` devices of one kind, at several context lengths."""

    architecture: Architecture
    device: Device
    count: int
    settings: Settings
    work: Workload
    weight_bytes: int
    contexts: tuple[ContextPlan, ...]


def make_plan(
    architecture: Architecture,
    contexts: list[int],
    device: Device,
    count: int,
    *,
    asked: Topology | None = None,
    settings: Settings | None = None,
    work: Workload | None = None,
) -> Plan:
    """Plan each context; unset axes of the topology are chosen for it. TopologyError where what is asked cannot be."""
    settings, work, asked = settings or Settings(), work or Workload(), asked or Topology()
    dtype = settings.dtype or architecture.dtype
    weights = total_weight_bytes(architecture, dtype, settings.quantization)
    planner = _Planner(architecture, device, count, settings, work, asked)
    return Plan(architecture, device, count, settings, work, weights, tuple(map(planner.plan, contexts)))


def model_shape(architecture: Architecture) -> ModelShape:
    """What decides how a model can be split."""
    return ModelShape(
        num_layers=len(architecture.layers),
        num_heads=architecture.num_heads,
        num_kv_heads=architecture.num_kv_heads,
        vocab_size=architecture.vocab_size,
        intermediate_size=architecture.expert_width or architecture.widest_mlp,
    )


def longest_context(architecture: Architecture, device: Device, mesh: MeshShape, settings: Settings) -> int | None:
    """Tokens of the longest sequence that fits; None: any; 0: none."""

    def fits(tokens: int) -> bool:
        return all(rank.fits for rank in plan_stages(architecture, tokens, device, mesh, settings))

    if not fits(1):
        return 0
    if fits(UNLIMITED):
        return None
    low, high = 1, UNLIMITED
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


@dataclass(frozen=True)
class _Planner:
    architecture: Architecture
    device: Device
    count: int
    settings: Settings
    work: Workload
    asked: Topology

    def plan(self, context: int) -> ContextPlan:
        recommended = self._recommend(context, self.count)
        mesh = self._mesh(context, recommended)
        dtype = self.settings.dtype or self.architecture.dtype
        state = state_bytes(
            self.architecture,
            context,
            kv_dtype=self.settings.kv_dtype or dtype,
            memory_dtype=self.settings.memory_dtype,
            batch=self.settings.batch,
            step_tokens=chunk_of(self.architecture, self.device, self.settings),
        )
        speed = estimate_speed(
            self.architecture,
            context,
            self.device,
            mesh,
            self.work,
            weights=(dtype, self.settings.quantization),
            state_bytes=state.total,
        )
        return ContextPlan(
            context=context,
            mesh=mesh,
            ranks=tuple(self._stages(context, mesh)),
            state=state,
            recommended=recommended,
            longest=longest_context(self.architecture, self.device, mesh, self.settings),
            speed=speed,
            devices_needed=self._devices_needed(context),
        )

    def _mesh(self, context: int, recommended: MeshShape | None) -> MeshShape:
        if self.asked != Topology():
            return resolve_topology(self.asked, self.count, model_shape(self.architecture))
        if recommended is not None:
            return recommended
        return min(self._meshes(self.count), key=lambda mesh: self._need(context, mesh))

    def _recommend(self, context: int, count: int) -> MeshShape | None:
        """Of the topologies that fit: most replicas, and in each the most shards (they share a new token's work too)."""
        good = [mesh for mesh in self._meshes(count) if self._fits(context, mesh)]
        return max(good, key=lambda mesh: (mesh.dp, mesh.tp), default=None)

    def _devices_needed(self, context: int) -> int | None:
        """The smallest number of such devices that one replica fits on."""
        return next((count for count in COUNTS if self._one_replica_fits(context, count)), None)

    def _one_replica_fits(self, context: int, count: int) -> bool:
        return any(mesh.dp == 1 and self._fits(context, mesh) for mesh in self._meshes(count))

    def _meshes(self, count: int) -> list[MeshShape]:
        return fitting(count, model_shape(self.architecture))

    def _need(self, context: int, mesh: MeshShape) -> int:
        return max(rank.total for rank in self._stages(context, mesh))

    def _fits(self, context: int, mesh: MeshShape) -> bool:
        return self._need(context, mesh) <= self.device.capacity

    def _stages(self, context: int, mesh: MeshShape) -> list[RankPlan]:
        return plan_stages(self.architecture, context, self.device, mesh, self.settings)
