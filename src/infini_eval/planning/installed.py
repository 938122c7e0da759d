"""What is installed, read from package metadata and files: nothing is imported."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from pathlib import Path


def version(distribution: str) -> str | None:
    """An installed distribution's version, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def is_importable(module: str) -> bool:
    """Whether a top-level module can be found."""
    return importlib.util.find_spec(module) is not None


def torch_cuda() -> str | None:
    """The CUDA version that torch was built for, from its version.py; None for a CPU build or without torch."""
    folder = _folder("torch")
    if folder is None or not (folder / "version.py").is_file():
        return None
    match = re.search(r"^cuda(?::[^=]*)? = ['\"]([\d.]+)['\"]", (folder / "version.py").read_text(), re.MULTILINE)
    return match[1] if match else None


def bitsandbytes_libraries() -> list[str]:
    """Names of bitsandbytes' compiled libraries, one for each CUDA version it supports."""
    folder = _folder("bitsandbytes")
    return [] if folder is None else sorted(path.name for path in folder.glob("libbitsandbytes_*.so"))


def knows_model_type(model_type: str) -> bool:
    """Whether the installed transformers has a folder for a model type ("llama4_text" belongs to llama4)."""
    folder = _folder("transformers")
    if folder is None:
        return False
    names = (model_type, model_type.removesuffix("_text"))
    return any((folder / "models" / name).is_dir() for name in names)


def _folder(module: str) -> Path | None:
    """A package's folder without importing it."""
    spec = importlib.util.find_spec(module)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent
