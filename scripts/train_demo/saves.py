"""Saves of a training run: weights, optimizer state and progress, so that a run goes on exactly where it stopped."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


class Trainable(Protocol):
    """What is asked of a model to be saved: its parameters by the names that its checkpoints use."""

    def named_weights(self) -> dict[str, nn.Parameter]: ...


@dataclass
class Progress:
    """Where a run is; saved beside the weights."""

    seed: int
    stage: int = 0
    stage_tokens: int = 0
    step: int = 0
    tokens: int = 0
    seconds: float = 0.0


def save(work_dir: Path, model: Trainable, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    """Writes a save folder, then points `latest` at it: an interruption leaves the previous save whole."""
    target, temporary = work_dir / f"save-{progress.step}-{progress.stage}", work_dir / "save-unfinished"
    if not target.exists():
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        save_file(cpu_copy(model.named_weights()), temporary / "weights.safetensors")
        save_file(cpu_copy(_moments(model, optimizer)), temporary / "optimizer.safetensors")
        (temporary / "progress.json").write_text(json.dumps(asdict(progress)))
        temporary.rename(target)
    pointer = work_dir / "latest.tmp"
    pointer.write_text(target.name)
    pointer.replace(work_dir / "latest")
    for old in work_dir.glob("save-*"):
        if old != target:
            shutil.rmtree(old, ignore_errors=True)


def resume(work_dir: Path, model: Trainable, optimizer: torch.optim.Optimizer) -> Progress | None:
    """Restores the last save into model and optimizer; None when there is none."""
    pointer = work_dir / "latest"
    if not pointer.exists():
        return None
    folder = work_dir / pointer.read_text()
    load_weights(model, folder / "weights.safetensors")
    weights = model.named_weights()
    for full_name, value in load_file(folder / "optimizer.safetensors").items():
        name, key = full_name.split("|")
        # Adam's step counter stays on the CPU, where the optimizer itself keeps it.
        optimizer.state[weights[name]][key] = value if key == "step" else value.to(weights[name].device)
    return Progress(**json.loads((folder / "progress.json").read_text()))


def load_weights(model: Trainable, path: Path) -> None:
    """Loads a weights file into the model; names must agree exactly."""
    loaded, weights = load_file(path), model.named_weights()
    if loaded.keys() != weights.keys():
        raise ValueError(f"{path} holds other parameters than the model: {sorted(loaded.keys() ^ weights.keys())}")
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(loaded[name])


def cpu_copy(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _moments(model: Trainable, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's tensors as `<parameter>|<key>`."""
    names = {id(weight): name for name, weight in model.named_weights().items()}
    return {f"{names[id(w)]}|{key}": value for w, state in optimizer.state.items() for key, value in state.items()}
