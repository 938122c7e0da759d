"""The on-disk layout of a nanotron checkpoint: folders, file names, parameter names, shapes, and how tp cuts them.

One safetensors file a parameter and shard, tensor key `data`; the pipeline rank appears only in the file name and
follows no simple rule, so readers glob it. Versions 1.2 to 1.5 share this layout.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from infini_eval.config import ModelConfig
from infini_eval.errors import CheckpointError

VERSIONS = ("1.2", "1.3", "1.4", "1.5")
TENSOR_KEY = "data"
WEIGHTS_FOLDER = "model"
EMBEDDING = "model.token_position_embeddings.pp_block.token_embedding.weight"
FINAL_NORM = "model.final_layer_norm.pp_block.weight"
LM_HEAD = "model.lm_head.pp_block.weight"

# `model_weight_pp-rank-0-of-1_tp-rank-0-of-2.safetensors`, or `model_weight.safetensors` for replicated parameters;
# builds around 1.3 doubled a part of the name (`model_model_weight.safetensors_pp-rank-…`).
_FILE_NAME = re.compile(
    r"model_(?:model_)?(?P<leaf>[a-z_]+?)(?:\.safetensors)?"
    r"(?:_pp-rank-(?P<pp>\d+)-of-(?P<pp_size>\d+)_tp-rank-(?P<tp>\d+)-of-(?P<tp_size>\d+))?\.safetensors"
)


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
        """Half-open global index ranges along `shard_dim` that belong to one of `size` tensor-parallel ranks."""
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
    """Name of a parameter of decoder layer `index` (numbers are global at every pipeline topology)."""
    return f"model.decoder.{index}.pp_block.{part}"


def layer_specs(config: ModelConfig, index: int) -> list[ParameterSpec]:
    """The parameters of one decoder layer."""
    d, heads, kv = config.head_dim, config.num_attention_heads, config.num_key_value_heads
    hidden, inter = config.hidden_size, config.intermediate_size
    q_width, kv_width = heads * d, kv * d
    specs = [
        ParameterSpec("input_layernorm.weight", (hidden,)),
        ParameterSpec("attn.qkv_proj.weight", (q_width + 2 * kv_width, hidden), 0, (q_width, kv_width, kv_width)),
        ParameterSpec("attn.o_proj.weight", (hidden, q_width), 1, (q_width,)),
        ParameterSpec("post_attention_layernorm.weight", (hidden,)),
        ParameterSpec("mlp.gate_up_proj.weight", (2 * inter, hidden), 0, (inter, inter)),
        ParameterSpec("mlp.down_proj.weight", (hidden, inter), 1, (inter,)),
    ]
    if config.has_segments:
        specs.append(ParameterSpec("attn.balance_factors", (heads,), 0, (heads,)))
    return [ParameterSpec(layer_name(index, s.name), s.shape, s.shard_dim, s.chunks) for s in specs]


def parameter_specs(config: ModelConfig) -> dict[str, ParameterSpec]:
    """Every parameter a checkpoint of this configuration must hold, by name; no lm_head where embeddings are tied."""
    table = (config.vocab_size, config.hidden_size)
    specs = [ParameterSpec(EMBEDDING, table, 0, (config.vocab_size,))]
    for index in range(config.num_hidden_layers):
        specs += layer_specs(config, index)
    specs.append(ParameterSpec(FINAL_NORM, (config.hidden_size,)))
    if not config.tie_word_embeddings:
        specs.append(ParameterSpec(LM_HEAD, table, 0, (config.vocab_size,)))
    return {spec.name: spec for spec in specs}


def file_path(folder: Path, spec: ParameterSpec, *, tp: int, tp_size: int, pp: int, pp_size: int) -> Path:
    """Where a shard of a parameter is written below a step folder."""
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


def find_step_folder(path: str | Path) -> Path:
    """The step folder that `path` means: itself (it holds config.yaml), or the one its latest.txt names."""
    path = Path(path)
    if not path.exists():
        raise CheckpointError(
            f"checkpoint not found: {path}",
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
        step = path / latest.read_text().strip()
        if (step / "config.yaml").is_file():
            return step
        raise CheckpointError(
            f"{latest} names {step.name!r}, but {step}/config.yaml does not exist", next_step=_nearby(path / "x")
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
    steps = [step.parent.name for step in path.glob("*/config.yaml")]
    if steps:
        steps.sort(key=lambda name: (len(name), name))
        return CheckpointError(
            f"{path} has neither config.yaml nor latest.txt",
            valid=f"one of its step folders: {', '.join(steps)}",
            next_step=f"--ckpt-path {path / steps[-1]}",
        )
    return CheckpointError(
        f"{path} is not a checkpoint: it has neither config.yaml nor latest.txt",
        valid="a folder with config.yaml and model/, or its parent with latest.txt",
    )


def _nearby(path: Path) -> str:
    """A sentence that lists the checkpoints near a wrong path."""
    root = path.parent
    while not root.exists():
        root = root.parent
    found = sorted(str(config.parent) for depth in ("*", "*/*") for config in root.glob(f"{depth}/config.yaml"))
    return f"checkpoints near it: {', '.join(found[:8])}" if found else "check the path; no checkpoint lies near it"
