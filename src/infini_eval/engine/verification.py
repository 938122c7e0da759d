"""Compares a checkpoint's logits and greedy tokens with those the training framework computed.

Legend: B rows, T tokens, V vocabulary.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from infini_eval.engine.native_model import NativeModel
from infini_eval.errors import DataError

NEAR_TIE = 1e-3  # logits closer than this may order differently in two correct implementations


@dataclass(frozen=True)
class Reference:
    """What the training framework computed: ids [B, T] int64, logits [B, T, V] fp32, and greedy continuations."""

    input_ids: torch.Tensor
    logits: torch.Tensor
    prompts: list[list[int]]
    generated: list[list[int]]


@dataclass(frozen=True)
class LogitComparison:
    """Sums that can be added up over replicas: `max_difference` by maximum, the rest by addition."""

    max_difference: float = 0.0
    total_difference: float = 0.0
    values: int = 0
    rows_generated: int = 0
    rows_agreeing: int = 0
    rows_identical: int = 0

    @property
    def mean_difference(self) -> float:
        """Mean absolute difference of the logits."""
        return self.total_difference / max(1, self.values)


def read_reference(logits_file: str, generation_file: str | None, memory_query: str) -> Reference:
    """Read what the training framework computed; keys that are not named here are ignored.

    Args:
        logits_file: safetensors with input_ids [B, T] and logits [B, T, V].
        generation_file: JSON with prompt_ids and generated; None to compare logits only.
        memory_query: with "plain", the *_nope_query entries are taken where present.

    Raises:
        DataError: a file cannot be read or has other contents.
    """
    tensors = _tensors(Path(logits_file))
    logits = tensors.get("logits_nope_query") if memory_query == "plain" else None
    logits = tensors.get("logits") if logits is None else logits
    ids = tensors.get("input_ids")
    if ids is None or logits is None or ids.dim() != 2 or logits.shape[:2] != ids.shape or logits.dim() != 3:
        contents = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
        raise DataError(f"{logits_file} holds {contents or 'nothing'}", valid="input_ids [B, T] and logits [B, T, V]")
    prompts, generated = _generation(generation_file, memory_query) if generation_file else ([], [])
    return Reference(ids.long(), logits.float(), prompts, generated)


def compare(model: NativeModel, reference: Reference, rows: range) -> LogitComparison:
    """Compare the reference's `rows` (of the logits and of the generations)."""
    result = LogitComparison()
    chosen = [row for row in rows if row < len(reference.input_ids)]
    if chosen:
        _check_vocabulary(model, reference)
        difference = (model.logits(reference.input_ids[chosen]) - reference.logits[chosen]).abs()
        # NaN compares false with everything; it must not pass for a small difference
        difference = torch.where(torch.isnan(difference), torch.inf, difference)
        result = LogitComparison(difference.max().item(), difference.double().sum().item(), difference.numel())
    prompts = [row for row in rows if row < len(reference.prompts)]
    agreeing, identical = _compare_generations(model, reference, prompts)
    return LogitComparison(
        result.max_difference, result.total_difference, result.values, len(prompts), agreeing, identical
    )


def _compare_generations(model: NativeModel, reference: Reference, rows: list[int]) -> tuple[int, int]:
    """How many rows agree up to a near tie, and how many are identical."""
    agreeing = identical = 0
    for row in rows:
        prompt, expected = reference.prompts[row], reference.generated[row]
        answer = model.generate([prompt], max(1, len(expected)), stop_ids=())[0][: len(expected)]
        same = answer == expected
        identical += same
        agreeing += same or _differs_at_near_tie(model, prompt, expected, answer)
    return agreeing, identical


def _differs_at_near_tie(model: NativeModel, prompt: list[int], expected: list[int], answer: list[int]) -> bool:
    split = next(i for i, (ours, theirs) in enumerate(zip(answer, expected, strict=True)) if ours != theirs)
    logits_V = model.logits([prompt + expected[:split]])[0, -1]
    return bool(logits_V.max() - logits_V[expected[split]] <= NEAR_TIE)


def _check_vocabulary(model: NativeModel, reference: Reference) -> None:
    if reference.logits.shape[2] != model.config.vocab_size:
        raise DataError(
            f"the reference's logits are over {reference.logits.shape[2]} tokens, "
            f"the checkpoint's over {model.config.vocab_size}",
            next_step="check that the reference was made with this checkpoint",
        )


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
        return tensors
    except (SafetensorError, OSError) as error:
        raise DataError(f"cannot read {path}: {error}", valid="a safetensors file with input_ids and logits") from None


def _generation(path: str, memory_query: str) -> tuple[list[list[int]], list[list[int]]]:
    try:
        document: Any = json.loads(Path(path).read_text())
        prompts = document["prompt_ids"]
        plain = document.get("generated_nope_query") if memory_query == "plain" else None
        generated = document["generated"] if plain is None else plain
        valid = len(prompts) == len(generated) and all(prompts)
        valid = valid and all(isinstance(token, int) for row in [*prompts, *generated] for token in row)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"cannot read {path}: {error!r}", valid="JSON with prompt_ids and generated") from None
    if not valid:
        raise DataError(f"{path}: prompt_ids and generated are not lists of token ids of the same length")
    return prompts, generated
