"""Time and GPU-hours from FLOPs and bytes, at a stated share of the device's peak."""

from __future__ import annotations

from dataclasses import dataclass

from infini_eval.distributed.mesh import MeshShape
from infini_eval.planning.architecture import Architecture
from infini_eval.planning.devices import Device
from infini_eval.planning.flops import prefill_flops
from infini_eval.planning.weights import total_weight_bytes

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
