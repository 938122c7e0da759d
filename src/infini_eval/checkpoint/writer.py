"""Writes parameters as a nanotron checkpoint of any tp and pp, in the layout that `reader` reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file

from infini_eval.checkpoint.config_yaml import read_config
from infini_eval.checkpoint.layout import EMBEDDING, TENSOR_KEY, ParameterSpec, file_path, parameter_specs
from infini_eval.errors import CheckpointError


def write_checkpoint(
    folder: str | Path,
    parameters: Mapping[str, torch.Tensor],
    config: Mapping[str, Any],
    *,
    tp: int = 1,
    pp: int = 1,
    version: str = "1.2",
    latest: bool = True,
) -> Path:
    """Write a step folder (`…/<step>`), and `latest.txt` beside it unless `latest` is False; returns the folder.

    Args:
        parameters: global tensors by their global names (layout.parameter_specs), in the dtype to be stored.
        config: the content of config.yaml (`model.model_config`, `infini_attention`, …); it decides the shapes.
        tp, pp: topology of the files; tp must divide the heads, the MLP width and the vocabulary.

    Raises:
        CheckpointError: names or shapes are not what the configuration asks for.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write_json_files(folder, config, tp=tp, version=version)
    model_config, _ = read_config(folder)
    specs = parameter_specs(model_config)
    _check_parameters(specs, parameters)
    for spec in specs.values():
        pp_rank = _pipeline_rank(spec.name, model_config.num_hidden_layers, pp)
        for rank in range(1 if spec.shard_dim is None else tp):
            path = file_path(folder, spec, tp=rank, tp_size=tp, pp=pp_rank, pp_size=pp)
            path.parent.mkdir(parents=True, exist_ok=True)
            tensor, metadata = _shard(spec, parameters[spec.name], rank, tp, version)
            save_file({TENSOR_KEY: tensor}, path, metadata=metadata)
    if latest:
        (folder.parent / "latest.txt").write_text(folder.name)
    return folder


def _write_json_files(folder: Path, config: Mapping[str, Any], *, tp: int, version: str) -> None:
    (folder / "config.yaml").write_text(yaml.safe_dump(dict(config), sort_keys=True))
    (folder / "model_config.json").write_text(json.dumps(config["model"]["model_config"]))
    step = (config.get("general") or {}).get("step") or 0
    metadata = {"dp": 1, "tp": tp, "version": version, "metas": {"consumed_train_samples": 0, "last_train_step": step}}
    (folder / "checkpoint_metadata.json").write_text(json.dumps(metadata, indent=2))


def _check_parameters(specs: Mapping[str, ParameterSpec], parameters: Mapping[str, torch.Tensor]) -> None:
    if specs.keys() != parameters.keys():
        difference = sorted(specs.keys() ^ parameters.keys())
        raise CheckpointError(f"parameters at odds with the configuration: {', '.join(difference[:4])}")
    for name, spec in specs.items():
        if tuple(parameters[name].shape) != spec.shape:
            raise CheckpointError(
                f"{name} has shape {tuple(parameters[name].shape)}, the configuration says {spec.shape}"
            )


def _pipeline_rank(name: str, layers: int, pp: int) -> int:
    """Contiguous blocks of layers; the embedding first, the final norm and the head last."""
    if ".decoder." in name:
        return int(name.split(".decoder.")[1].split(".")[0]) * pp // layers
    return 0 if name == EMBEDDING else pp - 1


def _shard(
    spec: ParameterSpec, tensor: torch.Tensor, rank: int, tp: int, version: str
) -> tuple[torch.Tensor, dict[str, str] | None]:
    """One rank's tensor and its metadata (None for replicated parameters)."""
    if spec.shard_dim is None:
        return tensor.detach().contiguous().cpu(), None
    if any(chunk % tp for chunk in spec.chunks):
        raise CheckpointError(f"tp={tp} does not divide {spec.name} ({spec.chunks})")
    ranges = spec.shard_ranges(rank, tp)
    local = torch.cat([tensor.narrow(spec.shard_dim, a, b - a) for a, b in ranges], dim=spec.shard_dim)
    metadata = {
        "version": version,
        "unsharded_shape": str(spec.shape),
        "local_global_slices_pairs": _slice_pairs(spec, ranges),
    }
    return local.detach().contiguous().cpu(), metadata


def _slice_pairs(spec: ParameterSpec, ranges: list[tuple[int, int]]) -> str:
    pairs, offset = [], 0
    for start, stop in ranges:
        local = _slices(spec, offset, offset + stop - start)
        pairs.append(f"{local}#{_slices(spec, start, stop)}")
        offset += stop - start
    return ";".join(pairs)


def _slices(spec: ParameterSpec, start: int, stop: int) -> str:
    dims = [f"{start},{stop},None" if dim == spec.shard_dim else "None,None,None" for dim in range(len(spec.shape))]
    return "|".join(dims)
