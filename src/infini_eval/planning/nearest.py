"""What would make a plan fit: a small space of changes, searched completely, the fewest changes first."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from infini_eval.distributed.mesh import MeshShape, fitting
from infini_eval.planning.architecture import Architecture
from infini_eval.planning.devices import Device
from infini_eval.planning.memory import Settings, chunk_of, plan_stages
from infini_eval.planning.plan import COUNTS, longest_context, model_shape
from infini_eval.planning.weights import state_bytes, total_weight_bytes

MOST_CHANGES = 3
SMALLEST_CHUNK = 256
Command = Literal["plan", "run"]


def nearest_settings(
    architecture: Architecture,
    context: int,
    device: Device,
    mesh: MeshShape,
    settings: Settings,
    command: Command = "plan",
) -> list[str]:
    """Changes that make `context` fit on such devices, as flags of `command`; empty where none of them does.

    First everything that fits on as many devices as now with the fewest changes; then, for each smaller number of
    changes, what needs the fewest devices; last the longest context that fits without any change.
    """
    search = _Search(architecture, context, device, mesh, settings, command)
    shorter = longest_context(architecture, device, mesh, settings)
    return [*search.run(), *([f"contexts of up to {shorter:,} tokens"] if shorter else [])]


@dataclass(frozen=True)
class _Choice:
    """One change of one setting, in the words of a command's flags."""

    words: str
    changed: dict[str, Any]


@dataclass(frozen=True)
class _Search:
    architecture: Architecture
    context: int
    device: Device
    mesh: MeshShape
    settings: Settings
    command: Command

    def run(self) -> list[str]:
        """One line for each way, none of which does more than another that suffices."""
        wider: list[str] = []
        fewest = COUNTS[-1] + 1
        for changes in range(MOST_CHANGES + 1):
            here: list[tuple[dict[int, int], str]] = []
            best: tuple[str, MeshShape] | None = None
            for levels, words, settings in self._combinations(changes):
                if any(_is_less(other, levels) for other, _ in here):
                    continue
                mesh = self._smallest_mesh(settings, fewest)
                if mesh is None:
                    continue
                if mesh.world_size == self.mesh.world_size:
                    here.append((levels, self._in_words(words, mesh)))
                else:
                    best, fewest = (words, mesh), mesh.world_size
            if here:
                return [line for _, line in here if line] + wider[::-1]
            if best is not None:
                wider.append(self._in_words(*best))
        return wider[::-1]

    def _combinations(self, changes: int) -> Iterator[tuple[dict[int, int], str, Settings]]:
        """Every way to change that many settings: the level of each, its words, the result."""
        dimensions = list(_dimensions(self.architecture, self.device, self.settings, self.command))
        for chosen in itertools.combinations(range(len(dimensions)), changes):
            for levels in itertools.product(*(range(len(dimensions[index])) for index in chosen)):
                picked = [dimensions[index][level] for index, level in zip(chosen, levels, strict=True)]
                settings = self.settings
                for choice in picked:
                    settings = replace(settings, **choice.changed)
                yield dict(zip(chosen, levels, strict=True)), " ".join(choice.words for choice in picked), settings

    def _smallest_mesh(self, settings: Settings, below: int) -> MeshShape | None:
        """The mesh on fewest devices, under `below` of them, that these settings fit; as it is, if that will do."""
        if self._fits(self.mesh, settings):
            return self.mesh
        counts = [count for count in COUNTS if self.mesh.world_size <= count < below]
        if self.command == "run" and self.device.kind == "cpu":
            counts = [count for count in counts if count == self.mesh.world_size]  # processes share the host's memory
        least = self._least_bytes(settings)
        for count in counts:
            if least > count * self.device.capacity:
                continue
            mesh = next((mesh for mesh in self._meshes(count) if self._fits(mesh, settings)), None)
            if mesh is not None:
                return mesh
        return None

    def _least_bytes(self, settings: Settings) -> int:
        """What all devices of one replica hold together at least: sharding divides, it never shrinks."""
        dtype = settings.dtype or self.architecture.dtype
        state = state_bytes(
            self.architecture,
            self.context,
            kv_dtype=settings.kv_dtype or dtype,
            memory_dtype=settings.memory_dtype,
            batch=settings.batch,
        )
        return total_weight_bytes(self.architecture, dtype, settings.quantization) + state.total

    def _meshes(self, count: int) -> list[MeshShape]:
        """Most replicas first, then most shards; transformers runs a replica over tp only."""
        meshes = fitting(count, model_shape(self.architecture))
        if count > self.mesh.world_size:
            meshes = [mesh for mesh in meshes if mesh.dp == 1]
        if self.command == "run" and self.architecture.engine != "native":
            meshes = [mesh for mesh in meshes if mesh.pp == 1]
        return sorted(meshes, key=lambda mesh: (-mesh.dp, -mesh.tp))

    def _fits(self, mesh: MeshShape, settings: Settings) -> bool:
        return all(rank.fits for rank in plan_stages(self.architecture, self.context, self.device, mesh, settings))

    def _in_words(self, words: str, mesh: MeshShape) -> str:
        if mesh == self.mesh:
            return words
        count = f" ({mesh.world_size} devices)" if mesh.world_size != self.mesh.world_size else ""
        return f"{words}{' ' if words else ''}{mesh}{count}"


def _is_less(one: dict[int, int], other: dict[int, int]) -> bool:
    """Whether `one` changes nothing that `other` leaves, and nothing further than it."""
    return all(index in other and level <= other[index] for index, level in one.items())


def _dimensions(
    architecture: Architecture, device: Device, settings: Settings, command: Command
) -> Iterator[list[_Choice]]:
    """What may be changed, what costs nothing first; in each the smallest change first."""
    plan = command == "plan"
    if architecture.engine != "native" and device.kind == "cuda":
        kernels = {"eager": ("sdpa", "flash"), "sdpa": ("flash",), "flash": ()}[settings.kernel]
        names = {"sdpa": "sdpa", "flash": "flash" if plan else "flash_attn"}
        flag = "--attention" if plan else "--attn-implementation"
        yield [_Choice(f"{flag} {names[kernel]}", {"kernel": kernel}) for kernel in kernels]
    if settings.kept_prefixes is not None:
        yield [_Choice("--prefix-cache-gb 0", {"kept_prefixes": None})]
    chunk = chunk_of(architecture, device, settings)
    smaller = [size for size in (chunk // 4, chunk // 16) if size >= SMALLEST_CHUNK]
    yield [_Choice(_chunk_words(architecture, size), {"prefill_chunk": size}) for size in smaller]
    halves = [settings.batch >> shift for shift in range(1, settings.batch.bit_length())]
    yield [_Choice(f"{'--batch' if plan else '--batch_size'} {size}", {"batch": size}) for size in halves]
    if (settings.dtype or architecture.dtype) == "float32":
        yield [_Choice("--dtype bfloat16", {"dtype": "bfloat16", "kv_dtype": None})]
    if architecture.engine == "native":
        return
    if plan and settings.kv_dtype != "fp8":
        yield [_Choice("--kv-dtype fp8", {"kv_dtype": "fp8"})]
    if settings.quantization == "none":
        names = {"fp8": "fp8"} if plan else {"8bit": "bnb-8bit", "4bit": "bnb-4bit"}
        if plan or device.kind == "cuda":
            yield [_Choice(f"--quantization {name}", {"quantization": value}) for name, value in names.items()]


def _chunk_words(architecture: Architecture, chunk: int) -> str:
    segment = next((layer.window for layer in architecture.layers if layer.attention == "infini"), None)
    if segment is not None:
        return f"--chunk-segments {max(1, chunk // segment)}"
    return f"--prefill-chunk {chunk}"
