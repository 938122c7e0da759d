"""What would make a plan fit: the smallest single changes, each tried with the same arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from infini_eval.distributed.topology import MeshShape, fitting
from infini_eval.planning.architecture import Architecture
from infini_eval.planning.devices import Device
from infini_eval.planning.memory import Settings, chunk_of, plan_stages
from infini_eval.planning.plan import longest_context, model_shape

MOST_DEVICES = 128
SMALLEST_CHUNK = 256


def nearest_settings(
    architecture: Architecture, context: int, device: Device, mesh: MeshShape, settings: Settings
) -> list[str]:
    """Changes that make `context` fit on such devices, each as the flag to pass; empty where none of them does."""

    def fits(mesh: MeshShape, settings: Settings) -> bool:
        return all(rank.fits for rank in plan_stages(architecture, context, device, mesh, settings))

    found = [words for words, changed in _changes(architecture, device, settings) if fits(mesh, changed)]
    wider = next((other for other in _wider(architecture, mesh) if fits(other, settings)), None)
    if wider is not None:
        found.append(f"{wider} ({wider.world_size} devices)")
    shorter = longest_context(architecture, device, mesh, settings)
    if shorter:
        found.append(f"contexts of up to {shorter:,} tokens")
    return found


def _changes(architecture: Architecture, device: Device, settings: Settings) -> Iterator[tuple[str, Settings]]:
    """Single changes of the settings, the mildest first."""
    native = architecture.engine == "native"
    batch = settings.batch // 2
    while batch >= 1:
        flag = "--batch_size" if native else "--batch"
        chunk = settings.prefill_chunk
        yield f"{flag} {batch}", replace(settings, batch=batch, prefill_chunk=chunk)
        batch //= 2
    chunk = chunk_of(architecture, device, settings) // 4
    if chunk >= SMALLEST_CHUNK:
        yield _chunk_words(architecture, chunk), replace(settings, prefill_chunk=chunk)
    if not native and settings.kernel != "flash":
        yield "--attention flash", replace(settings, kernel="flash")
    if (settings.dtype or architecture.dtype) == "float32":
        yield "--dtype bfloat16", replace(settings, dtype="bfloat16", kv_dtype=None)
    if not native and settings.kv_dtype != "fp8":
        yield "--kv-dtype fp8", replace(settings, kv_dtype="fp8")
    if not native and settings.quantization == "none":
        yield "--quantization fp8", replace(settings, quantization="fp8", kv_dtype=settings.kv_dtype or settings.dtype)


def _chunk_words(architecture: Architecture, chunk: int) -> str:
    segment = next((layer.window for layer in architecture.layers if layer.attention == "infini"), None)
    if segment is not None:
        return f"--chunk-segments {max(1, chunk // segment)}"
    return f"--prefill-chunk {chunk}"


def _wider(architecture: Architecture, mesh: MeshShape) -> Iterator[MeshShape]:
    """Larger tp x pp with one replica, the fewest devices first."""
    size = mesh.tp * mesh.pp * 2
    while size <= MOST_DEVICES:
        choices = [each for each in fitting(size, model_shape(architecture)) if each.dp == 1]
        yield from sorted(choices, key=lambda each: -each.tp)
        size *= 2
