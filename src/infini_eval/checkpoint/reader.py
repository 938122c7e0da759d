"""Reads a nanotron checkpoint at any saved topology: strict about every file, and only the bytes that are asked for."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from infini_eval.checkpoint.config_yaml import read_config
from infini_eval.checkpoint.layout import (
    LM_HEAD,
    TENSOR_KEY,
    WEIGHTS_FOLDER,
    ParameterSpec,
    SlicePair,
    WeightFile,
    check_tiling,
    check_version,
    find_step_folder,
    parameter_specs,
    parse_metadata,
    parse_weight_file,
)
from infini_eval.config import ModelConfig
from infini_eval.errors import CheckpointError
from infini_eval.foreign import read_json_object

DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
BLOCK_BYTES = 1 << 22  # copied, checked and converted at once
_SAMPLED_BYTES = 1 << 16  # of each end of a weight file, for the fingerprint
_Place = tuple[slice, ...]


@dataclass(frozen=True)
class _Shard:
    """A weight file with the blocks of the global tensor that it holds."""

    file: WeightFile
    pairs: list[SlicePair]


class Checkpoint:
    """An opened checkpoint: its configuration, and its parameters by global name.

    Opening reads headers only and checks that every expected parameter is there exactly once, with the expected
    shape, and that no weight file is left over.
    """

    def __init__(self, path: str | Path) -> None:
        self.folder = find_step_folder(path)
        self.config, self.notes = read_config(self.folder)
        _check_saved_version(self.folder)
        self.specs = parameter_specs(self.config)
        files = _find_files(self.folder)
        _check_names(self.config, self.specs, files, self.folder)
        self._shards = {name: _open_shards(self.specs[name], files[name], self.folder) for name in self.specs}
        first = next(shard.file for shards in self._shards.values() for shard in shards if shard.file.tp is not None)
        self.saved_tp, self.saved_pp = first.tp_size, first.pp_size

    def read(
        self, name: str, ranges: Sequence[tuple[int, int]] | None = None, dtype: torch.dtype | None = None
    ) -> torch.Tensor:
        """Read a parameter; beside the result there are only the file's mapped pages.

        Args:
            name: as in `specs`.
            ranges: of the sharded dim, joined in that order (None: all of it).
            dtype: of the result (None: as stored).

        Raises:
            CheckpointError: a file is corrupt, or NaN or infinity is among the values read.
        """
        spec = self.specs[name]
        dim = spec.shard_dim or 0
        wanted = [(0, spec.shape[dim])] if ranges is None else list(ranges)
        shape = list(spec.shape)
        shape[dim] = sum(stop - start for start, stop in wanted)
        result: torch.Tensor | None = None
        bad = 0
        for shard in self._shards[name]:
            with _opened(shard.file.path) as handle:
                tensor = handle.get_slice(TENSOR_KEY)
                stored = DTYPES[tensor.get_dtype()]
                if result is None:
                    result = torch.empty(shape, dtype=dtype or stored)
                for overlap in _overlaps(shard.pairs, wanted, dim):
                    for local, target in _blocks(*overlap, stored.itemsize):
                        block = _read_block(tensor, local, shard.file.path)
                        bad += block.numel() - int(torch.isfinite(block).sum())
                        result[target] = block
        assert result is not None
        if bad:
            raise CheckpointError(
                f"{bad} of {result.numel()} values of {name} are NaN or infinite ({self._shards[name][0].file.path})",
                next_step="training diverged or the file is damaged; evaluate an earlier step",
            )
        return result

    @property
    def stored_dtype(self) -> torch.dtype:
        """Dtype of the first parameter's file."""
        name = next(iter(self.specs))
        with _opened(self._shards[name][0].file.path) as handle:
            return DTYPES[handle.get_slice(TENSOR_KEY).get_dtype()]

    def fingerprint(self) -> str:
        """Hash config.yaml and, for each weight file, its place, size and both ends (64 KiB each): sha256."""
        digest = hashlib.sha256((self.folder / "config.yaml").read_bytes())
        paths = sorted(shard.file.path for shards in self._shards.values() for shard in shards)
        for path in paths:
            size = path.stat().st_size
            digest.update(f"{path.relative_to(self.folder)}:{size};".encode())
            with path.open("rb") as stream:
                digest.update(stream.read(_SAMPLED_BYTES))
                stream.seek(max(0, size - _SAMPLED_BYTES))
                digest.update(stream.read())
        return digest.hexdigest()


def _check_saved_version(folder: Path) -> None:
    path = folder / "checkpoint_metadata.json"
    if not path.exists():
        return  # each sharded file states its version too
    metadata = read_json_object(path, CheckpointError)
    check_version(metadata.get("version"), path)


def _find_files(folder: Path) -> dict[str, list[WeightFile]]:
    root = folder / WEIGHTS_FOLDER
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    weights = [path for path in paths if path.suffix == ".safetensors"]
    if not weights:
        pickled = next((path for path in paths if path.suffix in (".pt", ".bin", ".pth", ".pkl")), None)
        content = f"only pickled files such as {pickled}, which are never loaded" if pickled else "no weights"
        raise CheckpointError(
            f"{folder} has {content}", valid=f"{WEIGHTS_FOLDER}/**/*.safetensors as nanotron writes them"
        )
    files = defaultdict(list)
    for path in weights:
        file = parse_weight_file(folder, path)
        files[file.parameter].append(file)
    return files


def _check_names(
    config: ModelConfig, specs: dict[str, ParameterSpec], files: dict[str, list[WeightFile]], folder: Path
) -> None:
    missing = [name for name in specs if name not in files]
    unknown = [name for name in files if name not in specs]
    gates_on_disk = [name for name in unknown if name.endswith("balance_factors")]
    if gates_on_disk and not config.has_segments:
        raise CheckpointError(
            f"{folder} has gates ({gates_on_disk[0]}) but its config.yaml has no infini_attention section",
            next_step="restore the infini_attention section of the training run's config.yaml",
        )
    biases_on_disk = [name for name in unknown if name.endswith("qkv_proj.bias")]
    if biases_on_disk:
        asks = "attention_bias" if config.kind == "qwen2" else "is_qwen2_config"
        raise CheckpointError(
            f"{folder} has biases ({biases_on_disk[0]}) but its config.yaml does not say {asks}: true",
            valid="a dense Qwen2 (is_qwen2_config) with attention_bias",
            next_step="restore the config.yaml of the training run",
        )
    missing_gates = [name for name in missing if name.endswith("balance_factors")]
    if missing_gates:
        raise CheckpointError(
            f"gate missing: {missing_gates[0]} has no file in {folder}, though config.yaml has an infini_attention section",
            next_step="copy the missing files, or remove the section if this is a plain Llama",
        )
    if missing:
        hint = " (config.yaml says tie_word_embeddings: false)" if missing == [LM_HEAD] else ""
        raise CheckpointError(
            f"{len(missing)} parameter(s) have no weight file in {folder}: {', '.join(missing[:3])}{hint}",
            next_step="copy the missing files, or correct config.yaml",
        )
    if unknown:
        raise CheckpointError(
            f"weight files that config.yaml does not account for: {files[unknown[0]][0].path}"
            + (f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""),
            next_step="correct config.yaml (layers, tied embeddings), or move the files away",
        )


def _open_shards(spec: ParameterSpec, files: list[WeightFile], folder: Path) -> list[_Shard]:
    """The shards of one parameter, checked: complete set of ranks, expected shape, exact tiling."""
    _check_ranks(spec, files)
    shards = []
    for file in files:
        with _opened(file.path) as handle:
            if TENSOR_KEY not in handle.keys():  # noqa: SIM118  (a safetensors handle is no mapping)
                raise CheckpointError(f"{file.path} has no tensor named {TENSOR_KEY!r}")
            tensor = handle.get_slice(TENSOR_KEY)
            local_shape = tuple(tensor.get_shape())
            if tensor.get_dtype() not in DTYPES:
                raise CheckpointError(f"{file.path} stores {tensor.get_dtype()}", valid=", ".join(DTYPES))
            if file.tp is None:
                whole = tuple((0, size) for size in local_shape)
                shape, pairs = local_shape, [SlicePair(whole, whole)]
            else:
                shape, pairs = parse_metadata(handle.metadata(), local_shape, file.path)
        if shape != spec.shape:
            raise CheckpointError(
                f"{file.path} belongs to a tensor of shape {shape}, but config.yaml makes {spec.name} {spec.shape}",
                next_step="config.yaml and the weights are of different models",
            )
        shards.append(_Shard(file, pairs))
    check_tiling(spec.name, spec.shape, [pair.global_ for shard in shards for pair in shard.pairs], folder)
    return shards


def _check_ranks(spec: ParameterSpec, files: list[WeightFile]) -> None:
    sizes = {(file.tp_size, file.pp_size, file.pp) for file in files}
    place = files[0].path.parent
    if len(sizes) > 1:
        raise CheckpointError(
            f"{place} mixes files of several topologies: {', '.join(sorted(file.path.name for file in files))}",
            next_step="keep the files of one save only",
        )
    present = {file.tp or 0 for file in files}
    missing = sorted(set(range(files[0].tp_size)) - present)
    if missing or len(files) != files[0].tp_size:
        raise CheckpointError(
            f"missing shard of {spec.name}: {place} lacks tp-rank {', '.join(map(str, missing))} of {files[0].tp_size}",
            next_step="copy the missing file",
        )


class _opened:
    """`safe_open` whose errors name the file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Any:
        try:
            self._handle: Any = safe_open(self._path, framework="pt")
            return self._handle.__enter__()
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"truncated or corrupt weight file {self._path}: {error}", next_step="copy the file again"
            ) from None

    def __exit__(self, *exception: object) -> None:
        self._handle.__exit__(*exception)


def _read_block(tensor: Any, local: _Place, path: Path) -> torch.Tensor:
    try:
        block: torch.Tensor = tensor[local]
        return block
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"cannot read {path}: {error}", next_step="copy the file again") from None


def _blocks(local: _Place, target: _Place, itemsize: int) -> Iterator[tuple[_Place, _Place]]:
    """A place in a shard and its place in the result, cut along the first dim into blocks of about BLOCK_BYTES."""
    rows = local[0].stop - local[0].start
    row_bytes = math.prod(part.stop - part.start for part in local[1:]) * itemsize
    size = max(1, BLOCK_BYTES // row_bytes)
    for first in range(0, rows, size):
        yield _part(local, first, size), _part(target, first, size)


def _part(place: _Place, first: int, size: int) -> _Place:
    start = place[0].start + first
    return (slice(start, min(start + size, place[0].stop)), *place[1:])


def _overlaps(
    pairs: Sequence[SlicePair], wanted: Sequence[tuple[int, int]], dim: int
) -> Iterator[tuple[_Place, _Place]]:
    """For each part of `pairs` inside the wanted ranges of `dim`: its place in the shard and in the result."""
    offset = 0
    for start, stop in wanted:
        for pair in pairs:
            low, high = max(start, pair.global_[dim][0]), min(stop, pair.global_[dim][1])
            if low < high:
                local = [slice(*edges) for edges in pair.local]
                target = [slice(*edges) for edges in pair.global_]
                shift = pair.local[dim][0] - pair.global_[dim][0]
                local[dim] = slice(low + shift, high + shift)
                target[dim] = slice(offset + low - start, offset + high - start)
                yield tuple(local), tuple(target)
        offset += stop - start
