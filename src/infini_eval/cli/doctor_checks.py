"""What works on this machine, what is missing, and the command that mends it; nothing heavy is imported for it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from infini_eval._version import __version__
from infini_eval.planning.devices import Gpu, find_gpus

ENDPOINT = "https://huggingface.co"
OFFLINE_NAMES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
YES = {"1", "ON", "YES", "TRUE"}
TIMEOUT_S = 3.0


@dataclass(frozen=True)
class HubState:
    """`offline` is the variable that says so, or None. `has_token` tells that there is one, never what it is."""

    endpoint: str
    offline: str | None
    reachable: bool
    has_token: bool
    cache: Path


def hub_state(environment: Mapping[str, str], *, ask: bool = True) -> HubState:
    """The hub as this environment sees it; `ask` opens one connection unless it is offline by choice."""
    endpoint = environment.get("HF_ENDPOINT") or ENDPOINT
    home = Path(environment.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache = Path(environment.get("HF_HUB_CACHE") or home / "hub")
    offline = next((name for name in OFFLINE_NAMES if environment.get(name, "").upper() in YES), None)
    has_token = bool(environment.get("HF_TOKEN")) or (home / "token").is_file()
    reachable = ask and offline is None and _answers(endpoint)
    return HubState(endpoint, offline, reachable, has_token, cache)


def _answers(endpoint: str) -> bool:
    parts = urlsplit(endpoint)
    if not parts.hostname:
        return False
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with socket.create_connection((parts.hostname, port), timeout=TIMEOUT_S):
            return True
    except OSError:
        return False


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


Status = Literal["ok", "note", "missing", "wrong"]
PYTHONS = ((3, 11), (3, 14))
NEEDED = (
    "torch",
    "numpy",
    "pyarrow",
    "pydantic",
    "safetensors",
    "tokenizers",
    "transformers",
    "datasets",
    "scipy",
    "matplotlib",
    "rich",
)
# distribution: (what needs it, how it is installed)
OPTIONAL = {
    "accelerate": ("--device-map, --max-memory, --quantization", "pip install accelerate"),
    "flash-attn": ("--attn-implementation flash_attn", "pip install 'infini-eval[flash]' --no-build-isolation"),
    "openai": ("the backend openai", "pip install openai"),
    "fastapi": ("infini-eval serve", "pip install 'infini-eval[serve]'"),
    "google-genai": ("the backend gemini", "pip install google-genai"),
    "tensorboard": ("export --format tensorboard", "pip install tensorboard"),
    "mlflow-skinny": ("export --format mlflow", "pip install mlflow-skinny (or mlflow)"),
    "wandb": ("export --format wandb", "pip install wandb"),
    "vllm": ("the backend vllm", "pip install vllm in an environment of its own, run vllm serve, use --backend openai"),
}
LEAST_FREE = 20 * 10**9


@dataclass(frozen=True)
class CheckResult:
    """One line of the report. "wrong" is something that will fail; "missing" limits what can be done."""

    status: Status
    subject: str
    text: str
    mend: str | None = None


def examine(model: str | None = None, folder: Path | None = None) -> list[CheckResult]:
    """Every check, in the order of the report. `model` is a preset or config whose needs are checked too."""
    gpus = find_gpus()
    checks: list[Callable[[], list[CheckResult]]] = [
        _python,
        lambda: _gpus(gpus),
        lambda: _torch(gpus),
        _needed,
        lambda: _quantizer(gpus),
        _optional,
        lambda: _model(model),
        lambda: [hub_state_finding()],
        lambda: _disk(folder or Path.cwd()),
    ]
    return [finding for check in checks for finding in check()]


def _python() -> list[CheckResult]:
    here = f"{platform.python_version()} at {sys.executable}; infini_eval {__version__} at {Path(__file__).parents[1]}"
    if PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        return [CheckResult("ok", "python", here)]
    return [CheckResult("wrong", "python", here, "make an environment with Python 3.11 to 3.14")]


def _gpus(gpus: list[Gpu] | None) -> list[CheckResult]:
    if gpus is None:
        return [CheckResult("note", "gpus", "no nvidia-smi on this machine: everything runs on the CPU")]
    if not gpus:
        return [CheckResult("wrong", "gpus", "nvidia-smi finds no GPU", "check the driver: run nvidia-smi")]
    return [CheckResult("ok", "gpu", str(gpu)) for gpu in gpus]


def _torch(gpus: list[Gpu] | None) -> list[CheckResult]:
    found, cuda = version("torch"), torch_cuda()
    if found is None:
        return [CheckResult("wrong", "torch", "not installed", "pip install torch")]
    if cuda is not None:
        if gpus:
            return [CheckResult("ok", "torch", f"{found}, built for CUDA {cuda}; driver {gpus[0].driver}")]
        return [CheckResult("ok", "torch", f"{found}, built for CUDA {cuda}, which this machine cannot use")]
    if gpus:
        mend = "pip uninstall -y torch && pip install torch"
        return [CheckResult("wrong", "torch", f"{found} is a CPU build, but this machine has GPUs", mend)]
    return [CheckResult("ok", "torch", f"{found}, a CPU build")]


def _needed() -> list[CheckResult]:
    absent = [name for name in NEEDED if version(name) is None]
    if absent:
        return [CheckResult("wrong", "packages", "not installed: " + ", ".join(absent), "pip install infini-eval")]
    shown = ", ".join(f"{name} {version(name)}" for name in ("transformers", "tokenizers", "safetensors", "datasets"))
    return [CheckResult("ok", "packages", shown)]


def _quantizer(gpus: list[Gpu] | None) -> list[CheckResult]:
    found = version("bitsandbytes")
    if found is None:
        return [
            CheckResult("missing", "bitsandbytes", "not installed; --quantization needs it", "pip install bitsandbytes")
        ]
    findings = [CheckResult("ok", "bitsandbytes", found)]
    if gpus and not any("cuda" in name for name in bitsandbytes_libraries()):
        text = f"{found} has no CUDA library (a CPU-only build: there is none for every architecture, such as ARM64)"
        findings = [
            CheckResult("wrong", "bitsandbytes", text, "pip install --force-reinstall --no-cache-dir bitsandbytes")
        ]
    if gpus and not is_importable("triton"):
        findings.append(
            CheckResult("wrong", "triton", "not installed; kernels for quantised weights need it", "pip install triton")
        )
    return findings


def _optional() -> list[CheckResult]:
    findings = []
    for name, (purpose, line) in OPTIONAL.items():
        found = version(name)
        if found is None:
            findings.append(CheckResult("missing", name, f"not installed; {purpose} needs it", line))
        else:
            findings.append(CheckResult("ok", name, found))
    return findings


def _model(model: str | None) -> list[CheckResult]:
    if model is None:
        return []
    from infini_eval.planning.hf_config import read_architecture

    architecture = read_architecture(model)
    text = f"{architecture.name}: {architecture.kind}, {architecture.total_parameters:,} parameters"
    if architecture.engine == "native" or knows_model_type(architecture.kind):
        return [CheckResult("ok", "model", text)]
    known = f"transformers {version('transformers')} does not know the model type {architecture.kind!r}"
    return [CheckResult("wrong", "model", f"{text}; {known}", "pip install --upgrade transformers")]


def hub_state_finding() -> CheckResult:
    """Whether models and data can be downloaded, and where they are kept."""
    state = hub_state(os.environ)
    cache = f"cache {state.cache}"
    if state.offline:
        return CheckResult("note", "hub", f"offline by {state.offline}: only folders and what is in the {cache}")
    if not state.reachable:
        mend = "export HF_HUB_OFFLINE=1, and pass folders instead of hub ids"
        return CheckResult(
            "missing", "hub", f"{state.endpoint} does not answer: only folders and what is in the {cache}", mend
        )
    if not state.has_token:
        return CheckResult(
            "note", "hub", f"{state.endpoint} answers, no token (gated models need one); {cache}", "hf auth login"
        )
    return CheckResult("ok", "hub", f"{state.endpoint} answers, a token is set; {cache}")


def _disk(folder: Path) -> list[CheckResult]:
    findings = []
    for subject, place in (("disk", folder), ("hub cache", hub_state(os.environ, ask=False).cache)):
        existing = next(path for path in (place, *place.parents) if path.exists())
        free = shutil.disk_usage(existing).free
        text = f"{free / 1e9:,.0f} GB free at {existing}"
        if free < LEAST_FREE:
            findings.append(CheckResult("note", subject, text + "; Llama 4 Scout's weights need 217 GB in bfloat16"))
        else:
            findings.append(CheckResult("ok", subject, text))
    return findings
