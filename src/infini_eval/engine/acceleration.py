"""What --compile and --cuda-graphs need, and what they make of a loaded model; answers stay the same."""

from __future__ import annotations

import importlib.util
import os
import shutil

import torch

from infini_eval.config import ModelSettings
from infini_eval.engine.fixed_decode import FixedDecoders, as_it_is, recorded
from infini_eval.errors import BackendError, ConfigError
from infini_eval.models.llama import Llama


def accelerated(llama: Llama, stages: int, *, compile: bool, cuda_graphs: bool) -> FixedDecoders | None:
    """Compile the model's layers where asked for; the decode steps of fixed shapes, None where tokens are decoded as ever.

    With pipeline stages the chunks of the prefill are compiled and decoding stays as it is: several batches are under way.
    """
    if compile:
        llama.compile()
    if stages > 1 or not (compile or cuda_graphs):
        return None
    return FixedDecoders(llama, recorded if cuda_graphs else as_it_is)


def check_acceleration(settings: ModelSettings, device: torch.device, tp: int, pp: int) -> None:
    """A clear error, before anything is loaded, where a setting cannot work here."""
    if settings.cuda_graphs and device.type != "cuda":
        raise ConfigError("--cuda-graphs on a CPU", valid="--device cuda", next_step="leave --cuda-graphs out")
    if settings.cuda_graphs and tp * pp > 1:
        raise ConfigError(
            f"--cuda-graphs with tp={tp} pp={pp}: a recorded step holds no communication",
            valid="--tp 1 --pp 1, with any --dp",
            next_step="leave --cuda-graphs out",
        )
    if settings.compile:
        _check_compiler(device)


def _check_compiler(device: torch.device) -> None:
    if device.type == "cuda":
        if importlib.util.find_spec("triton") is None:
            raise BackendError(
                "--compile needs the package triton, which is not installed", next_step="pip install triton"
            )
    elif shutil.which(os.environ.get("CXX", "g++")) is None:
        raise BackendError(
            f"--compile needs a C++ compiler; there is no {os.environ.get('CXX', 'g++')}",
            valid="g++, or another one named by CXX",
            next_step="install one, or leave --compile out",
        )
