"""What a run is: everything that can change an answer is its identity, the rest its environment."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from infini_eval._version import __version__
from infini_eval.api.backend import Backend, EarlyStop, WorkItem
from infini_eval.api.task import LoadedData
from infini_eval.backends._keys import without_keys
from infini_eval.config import EvalConfig
from infini_eval.records import RunManifest


def describe_run(
    config: EvalConfig,
    data: LoadedData,
    backend: Backend,
    prepared: Sequence[WorkItem],
    early_stop: EarlyStop | None = None,
) -> RunManifest:
    """The manifest that is written before the first sample; the task stands in the configuration."""
    filters = {"num_shots": config.num_shots, "num_digits": config.num_digits or None, "depths": config.depths}
    identity = {
        "task": config.task,
        "scorer": config.scorer,
        "data": data.fingerprint,
        **({"data_settings": dict(data.settings)} if data.settings else {}),
        "filters": {**filters, "context_length": config.context_length},
        "seed": config.seed,
        "num_samples": config.num_samples,
        "max_new_tokens": config.max_new_tokens,
        # it leaves every score as it is, but not the recorded text
        **({"early_stop": True} if early_stop is not None else {}),
        **backend.identity(),
    }
    environment = {
        "eval_dataset_path": data.source,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": without_keys(sys.argv),
        "versions": _versions(),
        **backend.environment(),
    }
    return RunManifest(identity, backend.model_facts(), environment, len(prepared))


def _versions() -> dict[str, str]:
    versions = {"infini_eval": __version__, "python": platform.python_version()}
    for package in ("torch", "tokenizers", "safetensors", "numpy"):
        versions[package] = importlib.metadata.version(package)
    return versions
