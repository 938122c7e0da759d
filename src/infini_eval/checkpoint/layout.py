"""The on-disk layout of a nanotron checkpoint: folders, file names, parameter names, shapes, how tp cuts them, metadata.

One safetensors file a parameter and shard, tensor key `data`; the pipeline rank appears only in the file name and
follows no simple rule, so readers glob it. A shard's metadata says which block of the global tensor each of its blocks
is. Versions 1.2 to 1.5 share this layout.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from infini_eval.config import ModelConfig
from infini_eval.errors import CheckpointError, in_one_line, similar_path
from infini_eval.foreign import read_text, shown

VERSIONS = ("1.2", "1.3", "1.4", "1.5")
TENSOR_KEY = "data"
MOST_NAME_BYTES = 1_024  # of latest.txt
MOST_METADATA_CHARS = 1 << 20  # of a shard's slices
LISTED = 12  # checkpoints in a message
WEIGHTS_FOLDER = "model"
EMBEDDING = "model.token_position_embeddings.pp_block.token_embedding.weight"
FINAL_NORM = "model.final_layer_norm.pp_block.weight"
LM_HEAD = "model.lm_head.pp_block.weight"
Block = tuple[tuple[int, int], ...]  # a half-open range for each dim

# `model_weight_pp-rank-0-of-1_tp-rank-0-of-2.safetensors`, or `model_weight.safetensors` for replicated parameters;
# builds around 1.3 doubled a part of the name (`model_model_weight.safetensors_pp-rank-…`).
_FILE_NAME = re.compile(
    r"model_(?:model_)?(?P<leaf>[a-z_]+?)(?:\.safetensors)?"
    r"(?:_pp-rank-(?P<pp>\d+)-of-(?P<pp_size>\d+)_tp-rank-(?P<tp>\d+)-of-(?P<tp_size>\d+))?\.safetensors"
)
_NUMPY_INT = re.compile(r"np\.int\d+\((\d+)\)")  # how numpy >= 2 writes an int into a tuple's text


@dataclass(frozen=True)
class ParameterSpec:
    """A parameter's global shape and how tensor parallelism cuts it.

    `shard_dim` is None for replicated parameters. `chunks` are the sizes of the fused parts along `shard_dim`
    (q, k, v; gate, up): each part is dealt out by itself.
    """

    name: str
    shape: tuple[int, ...]
    shard_dim: int | None = None
    chunks: tuple[int, ...] = ()

    def shard_ranges(self, rank: int, size: int) -> list[tuple[int, int]]:
        """Compute the half-open global index ranges along `shard_dim` that belong to one of `size` tensor-parallel ranks."""
        ranges, offset = [], 0
        for length in self.chunks:
            ranges.append((offset + length * rank // size, offset + length * (rank + 1) // size))
            offset += length
        return ranges


@dataclass(frozen=True)
class WeightFile:
    """A weight file's place, as its path states it; `tp` and `pp` are None for replicated parameters."""

    path: Path
    parameter: str
    tp: int | None
    tp_size: int
    pp: int | None
    pp_size: int


def layer_name(index: int, part: str) -> str:
    """Name a parameter of decoder layer `index` (numbers are global at every pipeline topology)."""
    return f"model.decoder.{index}.pp_block.{part}"


def layer_specs(config: ModelConfig, index: int) -> list[ParameterSpec]:
    """List the parameters of one decoder layer."""
    d, heads, kv = config.head_dim, config.num_attention_heads, config.num_key_value_heads
    hidden, inter = config.hidden_size, config.intermediate_size
    q_width, kv_width = heads * d, kv * d
    fused, parts = q_width + 2 * kv_width, (q_width, kv_width, kv_width)
    specs = [
        ParameterSpec("input_layernorm.weight", (hidden,)),
        ParameterSpec("attn.qkv_proj.weight", (fused, hidden), 0, parts),
        ParameterSpec("attn.o_proj.weight", (hidden, q_width), 1, (q_width,)),
        ParameterSpec("post_attention_layernorm.weight", (hidden,)),
        ParameterSpec("mlp.gate_up_proj.weight", (2 * inter, hidden), 0, (inter, inter)),
        ParameterSpec("mlp.down_proj.weight", (hidden, inter), 1, (inter,)),
    ]
    if config.attention_bias:
        specs.append(ParameterSpec("attn.qkv_proj.bias", (fused,), 0, parts))
    if config.has_segments:
        specs.append(ParameterSpec("attn.balance_factors", (heads,), 0, (heads,)))
    return [ParameterSpec(layer_name(index, s.name), s.shape, s.shard_dim, s.chunks) for s in specs]


def parameter_specs(config: ModelConfig) -> dict[str, ParameterSpec]:
    """List every parameter that a checkpoint of this configuration must hold, by name; no lm_head where embeddings are tied."""
    table = (config.vocab_size, config.hidden_size)
    specs = [ParameterSpec(EMBEDDING, table, 0, (config.vocab_size,))]
    for index in range(config.num_hidden_layers):
        specs += layer_specs(config, index)
    specs.append(ParameterSpec(FINAL_NORM, (config.hidden_size,)))
    if not config.tie_word_embeddings:
        specs.append(ParameterSpec(LM_HEAD, table, 0, (config.vocab_size,)))
    return {spec.name: spec for spec in specs}


def file_path(folder: Path, spec: ParameterSpec, *, tp: int, tp_size: int, pp: int, pp_size: int) -> Path:
    """Name the file of a parameter's shard below a step folder."""
    parents, leaf = spec.name.rsplit(".", 1)
    shard = "" if spec.shard_dim is None else f"_pp-rank-{pp}-of-{pp_size}_tp-rank-{tp}-of-{tp_size}"
    return folder.joinpath(WEIGHTS_FOLDER, *parents.split("."), f"model_{leaf}{shard}.safetensors")


def parse_weight_file(folder: Path, path: Path) -> WeightFile:
    """Read a weight file's parameter and ranks off its path below the step folder `folder`."""
    match = _FILE_NAME.fullmatch(path.name)
    if match is None:
        raise CheckpointError(
            f"unexpected file among the weights: {path}",
            valid="model_<name>.safetensors or model_<name>_pp-rank-P-of-PP_tp-rank-T-of-TP.safetensors",
            next_step="move the file away; expert shards (exp-rank) are not supported",
        )
    parents = path.parent.relative_to(folder / WEIGHTS_FOLDER).parts
    number = {key: None if match[key] is None else int(match[key]) for key in ("tp", "pp")}
    return WeightFile(
        path=path,
        parameter=".".join([*parents, match["leaf"]]),
        tp=number["tp"],
        tp_size=int(match["tp_size"] or 1),
        pp=number["pp"],
        pp_size=int(match["pp_size"] or 1),
    )


@dataclass(frozen=True)
class SlicePair:
    """One block of a shard and the block of the global tensor that it is."""

    local: Block
    global_: Block


def volume(block: Block) -> int:
    """Count the values of a block."""
    return math.prod(stop - start for start, stop in block)


def parse_metadata(
    metadata: Mapping[str, str] | None, local_shape: Sequence[int], path: Path
) -> tuple[tuple[int, ...], list[SlicePair]]:
    """Read the global shape and the slice pairs of a sharded file whose tensor has `local_shape`.

    Raises:
        CheckpointError: the metadata is missing, unreadable, of an unknown version, or does not tile the tensor.
    """
    if not metadata or "local_global_slices_pairs" not in metadata or "unsharded_shape" not in metadata:
        raise CheckpointError(
            f"{path} is a shard without slice metadata (written before version 1.2)",
            valid=f"checkpoint versions {VERSIONS[0]} to {VERSIONS[-1]}",
            next_step="re-save the checkpoint with a newer nanotron",
        )
    check_version(metadata.get("version"), path)
    if len(metadata["local_global_slices_pairs"]) > MOST_METADATA_CHARS:
        raise CheckpointError(
            f"unreadable slice metadata in {path}: {len(metadata['local_global_slices_pairs']):,} characters"
        )
    try:
        shape = _parse_shape(metadata["unsharded_shape"])
        pairs = [_parse_pair(text, local_shape, shape) for text in metadata["local_global_slices_pairs"].split(";")]
    except (ValueError, SyntaxError, IndexError, TypeError, RecursionError, MemoryError) as error:
        raise CheckpointError(f"unreadable slice metadata in {path}: {in_one_line(error, 200)}") from None
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
            f"{path} says checkpoint version {shown(version)}",
            valid=f"{VERSIONS[0]} to {VERSIONS[-1]}",
            next_step="a newer layout needs a newer infini_eval",
        )


def check_tiling(name: str, shape: Sequence[int], blocks: Sequence[Block], folder: Path) -> None:
    """Refuse shards whose blocks do not cover the global tensor exactly once."""
    covered = sum(volume(block) for block in blocks)
    if covered != math.prod(shape) or _overlap(blocks):
        raise CheckpointError(
            f"the shards of {name} in {folder} do not tile it: {covered} of {math.prod(shape)} values are claimed"
            + (", some of them twice" if _overlap(blocks) else ""),
            next_step="a shard is missing or belongs to another checkpoint; copy the folder again",
        )


def _parse_shape(text: str) -> tuple[int, ...]:
    if len(text) > MOST_NAME_BYTES:
        raise ValueError(f"unsharded_shape {shown(text)}")
    shape = ast.literal_eval(_NUMPY_INT.sub(r"\1", text))
    if not isinstance(shape, tuple) or not all(type(size) is int and 0 <= size < 1 << 48 for size in shape):
        raise ValueError(f"unsharded_shape {shown(text)}")
    return shape


def _parse_pair(text: str, local_shape: Sequence[int], global_shape: Sequence[int]) -> SlicePair:
    local, global_ = text.split("#")
    return SlicePair(_parse_block(local, local_shape), _parse_block(global_, global_shape))


def _parse_block(text: str, shape: Sequence[int]) -> Block:
    dims = _NUMPY_INT.sub(r"\1", text).split("|")
    if len(dims) != len(shape):
        raise ValueError(f"slice {shown(text)} has {len(dims)} dims, the tensor {len(shape)}")
    block = []
    for dim, size in zip(dims, shape, strict=True):
        start, stop, step = (None if part.strip() == "None" else int(part) for part in dim.split(","))
        if step not in (None, 1) or not 0 <= (start or 0) <= (size if stop is None else stop) <= size:
            raise ValueError(f"slice {shown(dim)} of a dim of size {size}")
        block.append((start or 0, size if stop is None else stop))
    return tuple(block)


def _overlap(blocks: Sequence[Block]) -> bool:
    return any(
        all(max(a[0], b[0]) < min(a[1], b[1]) for a, b in zip(first, second, strict=True))
        for first, second in combinations(blocks, 2)
    )


def find_step_folder(path: str | Path) -> Path:
    """Find the step folder that `path` means: itself (it holds config.yaml), or the one its latest.txt names.

    Raises:
        CheckpointError: there is none; the message names what is near.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(
            f"checkpoint not found: {path}{similar_path(path)}",
            valid="a folder with config.yaml and model/, or its parent with latest.txt",
            next_step=_nearby(path),
        )
    if not path.is_dir():
        raise CheckpointError(
            f"checkpoint is a file, not a folder: {path}", next_step=f"pass its folder: --ckpt-path {path.parent}"
        )
    if (path / "config.yaml").is_file():
        return path
    latest = path / "latest.txt"
    if latest.is_file():
        name = read_text(latest, CheckpointError, MOST_NAME_BYTES).strip()
        if "\0" not in name and (path / name / "config.yaml").is_file():
            return path / name
        raise CheckpointError(
            f"{latest} names {shown(name)}, but there is no {shown(f'{path / name}/config.yaml')}",
            next_step=_nearby(path / "x"),
        )
    raise _no_config(path)


def _no_config(path: Path) -> CheckpointError:
    pickles = [*path.rglob("*.pt"), *path.rglob("*.bin"), *path.rglob("*.pth"), *path.rglob("*.pkl")]
    if pickles and not any(path.rglob("*.safetensors")):
        return CheckpointError(
            f"{path} holds only pickled files ({pickles[0].name}, …), which are never loaded",
            valid="a nanotron checkpoint with config.yaml and model/**/*.safetensors",
        )
    if (path / "model_config.json").is_file() or (path / WEIGHTS_FOLDER).is_dir():
        return CheckpointError(
            f"{path} has no config.yaml; segment_length and the gate activation are written nowhere else",
            next_step="copy the training run's config.yaml into this folder",
        )
    if steps := checkpoints_below(path):
        shown = ", ".join(steps[:LISTED]) + (f", … ({len(steps)} in all)" if len(steps) > LISTED else "")
        return CheckpointError(
            f"{path} has neither config.yaml nor latest.txt",
            valid=f"one of the checkpoints below it: {shown}",
            next_step=f"--ckpt-path {path / steps[-1]}",
        )
    return CheckpointError(
        f"{path} is not a checkpoint: it has neither config.yaml nor latest.txt",
        valid="a folder with config.yaml and model/, or its parent with latest.txt",
    )


def checkpoints_below(path: Path) -> list[str]:
    """Step folders up to three levels below a folder, as paths from it; steps in the order of their numbers."""
    found = {
        config.parent.relative_to(path) for depth in (1, 2, 3) for config in path.glob("*/" * depth + "config.yaml")
    }
    return [str(one) for one in sorted(found, key=lambda one: (one.parent, len(one.name), one.name))]


def _nearby(path: Path) -> str:
    """A sentence that lists the checkpoints near a wrong path."""
    root = path.parent
    while not root.exists():
        root = root.parent
    folders = sorted(str(config.parent) for depth in ("*", "*/*") for config in root.glob(f"{depth}/config.yaml"))
    return f"checkpoints near it: {', '.join(folders[:8])}" if folders else "check the path; no checkpoint lies near it"
