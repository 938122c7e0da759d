"""From what a user types after --model (a preset, a config, a checkpoint) to an Architecture."""

from __future__ import annotations

import importlib.resources
import json
from pathlib import Path
from typing import Any

from infini_eval.errors import ConfigError
from infini_eval.planning.architecture import Architecture


def preset_names() -> list[str]:
    """The names of the packaged configurations."""
    folder = importlib.resources.files("infini_eval.planning") / "presets"
    return sorted(entry.name.removesuffix(".json") for entry in folder.iterdir() if entry.name.endswith(".json"))


def read_architecture(model: str) -> Architecture:
    """A preset's name; a config.json or config.yaml; a folder with either; a nanotron checkpoint or its parent.

    Raises ConfigError or CheckpointError where there is no such model or it cannot be read.
    """
    if model in preset_names():
        folder = importlib.resources.files("infini_eval.planning") / "presets"
        return _from_json(Path(str(folder / f"{model}.json")), model)
    path = Path(model)
    if path.is_dir():
        return _from_folder(path)
    if path.is_file():
        return _from_file(path)
    raise ConfigError(
        f"no model {model!r}",
        valid=f"a preset ({', '.join(preset_names())}), a Hugging Face config.json, a nanotron config.yaml, or a folder",
        next_step="for a model on the hub: hf download MODEL config.json --local-dir DIR, then --model DIR",
    )


def _from_folder(folder: Path) -> Architecture:
    if (folder / "config.json").is_file() and not (folder / "config.yaml").is_file():
        return _from_json(folder / "config.json", str(folder))
    from infini_eval.checkpoint.layout import find_step_folder

    return _from_file(find_step_folder(folder) / "config.yaml")


def _from_file(path: Path) -> Architecture:
    if path.suffix == ".json":
        return _from_json(path, str(path))
    return _from_yaml(path, str(path))


def _from_yaml(path: Path, name: str) -> Architecture:
    from infini_eval.checkpoint.config_yaml import read_config_file
    from infini_eval.planning.architecture import from_model_config

    config, _ = read_config_file(path)
    return from_model_config(config, name)


def _from_json(path: Path, name: str) -> Architecture:
    try:
        document: Any = json.loads(path.read_text())
    except (ValueError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{path} is not a JSON object", valid="a model's config.json")
    if "model_config" in (document.get("model") or {}):  # nanotron's sections, written as JSON
        return _from_yaml(path, name)
    from infini_eval.planning.hf_config import from_hf_config

    return from_hf_config(document, name)
