"""What would make a plan fit: the smallest single changes, each tried with the same arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from infini_eval.distributed.topology import MeshShape, fitting
from infini_eval.planning.architecture import Architecture
from infini_eval.planning.devices import Device
from infini_eval.planning.memory import Settings, chunk_of, plan_stages
from infini_eval.planning.plan import longest_context, model_shape

MOST_DEVICES = 128
SMALLEST_CHUNK = 256


def nearest_settings(
    architecture: Architecture,
    context: int,
    device: Device,
    mesh: MeshShape,
    settings: Settings,
    command: Literal["plan", "run"] = "plan",
) -> list[str]:
    """Changes that make `context` fit on such devices, each as the flag of `command`; empty where none of them does."""

    def fits(mesh: MeshShape, settings: Settings) -> bool:
        return all(rank.fits for rank in plan_stages(architecture, context, device, mesh, settings))

    changes = _Changes(architecture, settings, command)
    tried = [*changes.batches(), *changes.prefixes(), *changes.steps(device), *changes.dtypes()]
    found = [words for words, changed in tried if fits(mesh, changed)]
    for words, changed in [("", settings), *((f"{words} and ", changed) for words, changed in tried)]:
        wider = next((other for other in _wider(architecture, mesh) if fits(other, changed)), None)
        if wider is not None:
            found.append(f"{words}{wider} ({wider.world_size} devices)")
            break
    shorter = longest_context(architecture, device, mesh, settings)
    if shorter:
        found.append(f"contexts of up to {shorter:,} tokens")
    return found


@dataclass(frozen=True)
class _Changes:
    """Single changes of the settings, in the words of a command's flags."""

    architecture: Architecture
    settings: Settings
    command: str

    def batches(self) -> Iterator[tuple[str, Settings]]:
        """Smaller batches, the largest first."""
        batch = self.settings.batch // 2
        while batch >= 1:
            flag = "--batch" if self.command == "plan" else "--batch_size"
            yield f"{flag} {batch}", replace(self.settings, batch=batch)
            batch //= 2

    def prefixes(self) -> Iterator[tuple[str, Settings]]:
        """No states of shared prefixes."""
        if self.settings.kept_prefixes is not None:
            yield "--prefix-cache-gb 0", replace(self.settings, kept_prefixes=None)

    def steps(self, device: Device) -> Iterator[tuple[str, Settings]]:
        """A shorter prefill step, and attention that keeps no scores and no mask."""
        chunk = chunk_of(self.architecture, device, self.settings) // 4
        if chunk >= SMALLEST_CHUNK:
            yield _chunk_words(self.architecture, chunk), replace(self.settings, prefill_chunk=chunk)
        if self.architecture.engine != "native" and self.settings.kernel != "flash":
            flag = "--attention flash" if self.command == "plan" else "--attn-implementation flash_attn"
            yield flag, replace(self.settings, kernel="flash")

    def dtypes(self) -> Iterator[tuple[str, Settings]]:
        """Narrower numbers."""
        if (self.settings.dtype or self.architecture.dtype) == "float32":
            yield "--dtype bfloat16", replace(self.settings, dtype="bfloat16", kv_dtype=None)
        if self.architecture.engine == "native" or self.command != "plan":
            return
        if self.settings.kv_dtype != "fp8":
            yield "--kv-dtype fp8", replace(self.settings, kv_dtype="fp8")
        if self.settings.quantization == "none":
            yield "--quantization fp8", replace(self.settings, quantization="fp8")


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
