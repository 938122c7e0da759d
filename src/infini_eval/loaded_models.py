"""Backends around models that Python code has in its hands: a NativeModel, a Hugging Face model, any function of prompts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from infini_eval.api.backend import Backend, Batch, BatchPlan, EarlyStop, Footprint, Rows, TextBackend
from infini_eval.backends.huggingface.backend import TransformersBackend
from infini_eval.backends.huggingface.generate import BatchGenerator
from infini_eval.backends.nanotron import NanotronBackend
from infini_eval.config import EvalConfig
from infini_eval.distributed.launch import World
from infini_eval.engine.native_model import NativeModel
from infini_eval.errors import ConfigError
from infini_eval.records import Response

SAMPLED_VALUES = 64  # of each end of each tensor, for the identity of weights that no file holds


class LoadedNanotron(NanotronBackend):
    """A `NativeModel` that is loaded: its checkpoint's tokenizer and identity, no second copy of its weights."""

    def __init__(self, config: EvalConfig, world: World, model: NativeModel) -> None:
        super().__init__(config, world)
        self._model = model

    def load(self, plan: BatchPlan) -> None:
        assert self._model is not None
        self._prefix_cache = self._model.new_prefix_cache()

    def footprint(self, plan: BatchPlan) -> Footprint | None:  # type: ignore[override]
        """None: the weights are there, a plan that counts them again would refuse what fits."""
        return None


class LoadedTransformers(TransformersBackend):
    """A causal language model of transformers that is loaded, with its tokenizer."""

    def __init__(self, config: EvalConfig, world: World, model: Any, tokenizer: Any) -> None:
        self._hf_model, self._tokenizer = model, tokenizer
        super().__init__(config, world)

    def _read_config(self) -> Any:
        return self._hf_model.config

    def _open_skeleton(self) -> torch.nn.Module:
        model: torch.nn.Module = self._hf_model
        return model

    def _open_tokenizer(self) -> Any:
        return self._tokenizer

    def _weights_identity(self) -> str:
        return weights_identity(self._hf_model)

    def footprint(self, plan: BatchPlan) -> Footprint | None:
        """None, as the weights are there."""
        return None

    def load(self, plan: BatchPlan) -> None:
        self._found = (self._hf_model.generation_config, self._hf_model.training)
        self._hf_model.eval()
        self._generator = BatchGenerator(
            self._hf_model, self._prompts.tokenizer, self._config, self._loading.prefill_chunk
        )

    def answer(
        self,
        work: Iterator[tuple[Batch, Rows]],
        *,
        early_stop: EarlyStop | None = None,
        on_tokens: Callable[[int], None] | None = None,
    ) -> Iterator[tuple[Batch, list[Response]]]:
        try:
            yield from super().answer(work, early_stop=early_stop, on_tokens=on_tokens)
        finally:  # the user's model leaves as it came
            self._hf_model.generation_config, training = self._found
            self._hf_model.train(training)


class FunctionBackend(TextBackend):
    """Any function from a list of prompts to a list of answers, in the same order."""

    def __init__(self, config: EvalConfig, world: World, function: Callable[[list[str]], Sequence[str]]) -> None:
        super().__init__(config, world)
        self._function = function
        self.notes = ["the model is a function: a resumed run cannot tell whether it is still the same one"]

    def model_facts(self) -> Mapping[str, Any]:
        return {**super().model_facts(), "kind": "function"}

    def complete(self, prompts: list[str]) -> Sequence[str]:
        return self._function(prompts)


def open_loaded(model: Any, tokenizer: Any = None) -> tuple[str, str, Callable[[EvalConfig, World], Backend]]:
    """How a model in hand becomes a backend: the backend's name, the model's name, and what opens it.

    Args:
        model: a `NativeModel`, a model of transformers, or a function from prompts to answers.
        tokenizer: of a model of transformers.

    Raises:
        ConfigError: it is none of these, or a tokenizer is missing.
    """
    if isinstance(model, NativeModel):
        if model.checkpoint is None:
            raise ConfigError("the NativeModel was not loaded from a checkpoint", valid="infini_eval.load_model(PATH)")
        folder = str(model.checkpoint.folder)
        return "nanotron", folder, lambda config, world: LoadedNanotron(config, world, model)
    if isinstance(model, torch.nn.Module) and hasattr(model, "generate"):
        if tokenizer is None:
            raise ConfigError(
                "a loaded Hugging Face model needs its tokenizer", next_step="evaluate(model, tokenizer=tokenizer, ...)"
            )
        name = getattr(model, "name_or_path", "") or type(model).__name__
        return "transformers", name, lambda config, world: LoadedTransformers(config, world, model, tokenizer)
    if callable(model):
        name = f"{getattr(model, '__module__', '?')}.{getattr(model, '__qualname__', type(model).__qualname__)}"
        return "function", name, lambda config, world: FunctionBackend(config, world, model)
    raise ConfigError(
        f"model is a {type(model).__name__}",
        valid="a checkpoint's path, a NativeModel, a Hugging Face model with tokenizer=, or a function list[str] -> list[str]",
    )


def weights_identity(model: torch.nn.Module) -> str:
    """sha256 (16 digits) over the name, shape, dtype and some values of both ends of every parameter."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        flat = parameter.detach().reshape(-1)
        ends = torch.cat((flat[:SAMPLED_VALUES], flat[-SAMPLED_VALUES:])).float().cpu()
        digest.update(f"{name}:{tuple(parameter.shape)}:{parameter.dtype};".encode() + ends.numpy().tobytes())
    return digest.hexdigest()[:16]
