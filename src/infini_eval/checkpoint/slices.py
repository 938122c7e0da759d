"""The slice metadata of a sharded weight file: which block of the global tensor each block of the shard is."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from infini_eval.checkpoint.layout import VERSIONS
from infini_eval.errors import CheckpointError

Block = tuple[tuple[int, int], ...]  # a half-open range for each dim
_NUMPY_INT = re.compile(r"np\.int\d+\((\d+)\)")  # how numpy >= 2 writes an int into a tuple's text


@dataclass(frozen=True)
class SlicePair:
    """One block of a shard and the block of the global tensor that it is."""

    local: Block
    global_: Block


def volume(block: Block) -> int:
    return math.prod(stop - start for start, stop in block)


def parse_metadata(
    metadata: Mapping[str, str] | None, local_shape: Sequence[int], path: Path
) -> tuple[tuple[int, ...], list[SlicePair]]:
    """Global shape and slice pairs of a sharded file whose tensor has `local_shape`."""
    if not metadata or "local_global_slices_pairs" not in metadata or "unsharded_shape" not in metadata:
        raise CheckpointError(
            f"{path} is a shard without slice metadata (written before version 1.2)",
            valid=f"checkpoint versions {VERSIONS[0]} to {VERSIONS[-1]}",
            next_step="re-save the checkpoint with a newer nanotron",
        )
    check_version(metadata.get("version"), path)
    try:
        shape = _parse_shape(metadata["unsharded_shape"])
        pairs = [_parse_pair(text, local_shape, shape) for text in metadata["local_global_slices_pairs"].split(";")]
    except (ValueError, SyntaxError, IndexError) as error:
        raise CheckpointError(f"unreadable slice metadata in {path}: {error}") from None
    for pair in pairs:
        sizes = [[stop - start for start, stop in block] for block in (pair.local, pair.global_)]
        if sizes[0] != sizes[1]:
            raise CheckpointError(f"{path}: a slice of shape {sizes[0]} claims a global block of shape {sizes[1]}")
    if sum(volume(pair.local) for pair in pairs) != math.prod(local_shape) or _overlap([p.local for p in pairs]):
        raise CheckpointError(f"{path}: its slices do not tile its tensor of shape {tuple(local_shape)}")
    return shape, pairs


def check_version(version: object, path: Path) -> None:
    """Accept 1.2 to 1.5; refuse what this reader was not written for."""
    if str(version) not in VERSIONS:
        raise CheckpointError(
            f"{path} says checkpoint version {version!r}",
            valid=f"{VERSIONS[0]} to {VERSIONS[-1]}",
            next_step="a newer layout needs a newer infini_eval",
        )


def check_tiling(name: str, shape: Sequence[int], blocks: Sequence[Block], folder: Path) -> None:
    """The blocks of all shards must cover the global tensor exactly once."""
    covered = sum(volume(block) for block in blocks)
    if covered != math.prod(shape) or _overlap(blocks):
        raise CheckpointError(
            f"the shards of {name} in {folder} do not tile it: {covered} of {math.prod(shape)} values are claimed"
            + (", some of them twice" if _overlap(blocks) else ""),
            next_step="a shard is missing or belongs to another checkpoint; copy the folder again",
        )


def _parse_shape(text: str) -> tuple[int, ...]:
    shape = ast.literal_eval(_NUMPY_INT.sub(r"\1", text))
    if not isinstance(shape, tuple) or not all(isinstance(size, int) for size in shape):
        raise ValueError(f"unsharded_shape {text!r}")
    return shape


def _parse_pair(text: str, local_shape: Sequence[int], global_shape: Sequence[int]) -> SlicePair:
    local, global_ = text.split("#")
    return SlicePair(_parse_block(local, local_shape), _parse_block(global_, global_shape))


def _parse_block(text: str, shape: Sequence[int]) -> Block:
    dims = _NUMPY_INT.sub(r"\1", text).split("|")
    if len(dims) != len(shape):
        raise ValueError(f"slice {text!r} has {len(dims)} dims, the tensor {len(shape)}")
    block = []
    for dim, size in zip(dims, shape, strict=True):
        start, stop, step = (None if part.strip() == "None" else int(part) for part in dim.split(","))
        if step not in (None, 1) or not 0 <= (start or 0) <= (size if stop is None else stop) <= size:
            raise ValueError(f"slice {dim!r} of a dim of size {size}")
        block.append((start or 0, size if stop is None else stop))
    return tuple(block)


def _overlap(blocks: Sequence[Block]) -> bool:
    return any(
        all(max(a[0], b[0]) < min(a[1], b[1]) for a, b in zip(one, other, strict=True))
        for one, other in combinations(blocks, 2)
    )
