"""Helpers for tests of what builds on this package: real processes, small models, made-up runs.

`run_distributed_test` runs a function in several processes joined by gloo, `poisoned_memory` fills fresh tensors with NaN.
`write_tiny_checkpoint` (of a `tiny_config`) and `write_tiny_hf_model` write small random models in nanotron's and Hugging
Face's layout. `write_fake_run` writes the run folder that a `FakeRun` describes, for reports. `peak_of_tensors` counts the
bytes of live tensors.
"""

import importlib
from typing import TYPE_CHECKING, Any

__all__ = [
    "FakeRun",
    "peak_of_tensors",
    "poisoned_memory",
    "run_distributed_test",
    "tiny_config",
    "write_fake_run",
    "write_tiny_checkpoint",
    "write_tiny_hf_model",
]

if TYPE_CHECKING:
    from infini_eval.testing.distributed import poisoned_memory, run_distributed_test
    from infini_eval.testing.fake_runs import FakeRun, write_fake_run
    from infini_eval.testing.tiny_models import peak_of_tensors, tiny_config, write_tiny_checkpoint, write_tiny_hf_model

_HOMES = {
    "distributed": ("poisoned_memory", "run_distributed_test"),
    "fake_runs": ("FakeRun", "write_fake_run"),
    "tiny_models": ("peak_of_tensors", "tiny_config", "write_tiny_checkpoint", "write_tiny_hf_model"),
}


def __getattr__(name: str) -> Any:
    # torch is imported with the first helper that needs it
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
