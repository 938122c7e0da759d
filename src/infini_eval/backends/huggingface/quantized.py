"""What a quantizer really converts: planned from the shapes before loading, compared with the footprint after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from infini_eval.errors import BackendError
from infini_eval.planning.text import gigabytes

BITS = {"4bit": 4, "8bit": 8}
KEPT = ("lm_head", "embed_out", "output")  # bitsandbytes leaves the head as it is
MOST_LEFT_OUT = 0.10  # of all weights that a matmul reads, beyond embeddings and head
TOLERANCE = 0.10
PACKED_ROWS = 32


@dataclass(frozen=True)
class QuantizationPlan:
    """Bytes of the weights, and how many of them (counted as parameters) the quantizer converts or cannot convert."""

    bytes: int
    converted: int
    left_out: int
    example: str | None = None


def plan(skeleton: torch.nn.Module, quantization: str | None, dtype_bytes: int) -> QuantizationPlan:
    """The weights of a model on the meta device: linear layers shrink, everything else keeps its dtype.

    Fused experts are one parameter of three dims, which bitsandbytes passes over: they are what `left_out` counts.
    """
    total = converted = left_out = 0
    example, seen = None, set()
    for name, module in skeleton.named_modules():
        head = name.rpartition(".")[2] in KEPT
        for kind, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen:  # tied
                continue
            seen.add(id(parameter))
            linear = isinstance(module, torch.nn.Linear) and kind == "weight" and not head
            if linear and quantization:
                total += parameter.numel() * BITS[quantization] // 8
                converted += parameter.numel()
                continue
            total += parameter.numel() * dtype_bytes
            if parameter.ndim >= 2 and not isinstance(module, torch.nn.Embedding) and not head:
                left_out += parameter.numel()
                example = example or f"{name}.{kind}"
    total -= _tied(skeleton) * dtype_bytes
    return QuantizationPlan(total, converted, left_out, example)


def refuse_what_stays_large(planned: QuantizationPlan, quantization: str, path: str) -> None:
    """BackendError, before anything is loaded, where a good part of the model would silently keep its size."""
    share = planned.left_out / max(1, planned.left_out + planned.converted)
    ideal = (planned.left_out + planned.converted) * BITS[quantization] // 8
    if share > MOST_LEFT_OUT:
        raise BackendError(
            f"--quantization {quantization}: bitsandbytes converts only {100 * (1 - share):.0f} % of the weights of {path!r} "
            f"({planned.example} and its like are fused parameters that it passes over); the weights would take "
            f"{gigabytes(planned.bytes)}, not the {gigabytes(ideal)} that the flag promises",
            next_step="use a checkpoint that was quantised beforehand, or more GPUs (--tp) with --dtype bfloat16",
        )


def check_footprint(model: Any, planned: QuantizationPlan, quantization: str) -> None:
    """BackendError where the loaded model takes clearly more than planned: the quantizer did not do what was asked."""
    real = model.get_memory_footprint(return_buffers=False)
    if real > planned.bytes * (1 + TOLERANCE):
        raise BackendError(
            f"--quantization {quantization}: the loaded weights take {gigabytes(real)}, planned were "
            f"{gigabytes(planned.bytes)}: not everything was quantised",
            next_step="leave --quantization out, or report the model and the versions of bitsandbytes and transformers",
        )


def use_plain_kernels_where_needed(model: torch.nn.Module) -> int:
    """Layers (their number) whose shape the packed 4-bit CPU kernel of bitsandbytes cannot take, set to its ordinary one.

    On processors with AVX512-BF16 it packs a weight [N, K] in blocks of 32 rows and one block of absmax, and fails in the
    middle of the first forward where N or K is no multiple of them (read in bitsandbytes 0.50.2: Linear4bit.forward).
    """
    odd = 0
    layer: Any  # a Linear4bit of bitsandbytes
    for layer in model.modules():
        if getattr(layer, "support_avx512bf16_for_cpu", False):
            rows, columns = layer.weight.quant_state.shape
            if rows % PACKED_ROWS or columns % layer.weight.quant_state.blocksize:
                layer.support_avx512bf16_for_cpu = False
                odd += 1
    return odd


def _tied(skeleton: Any) -> int:
    """Parameters of a head that shares the embedding's storage (on the meta device both may have shapes of their own)."""
    output = skeleton.get_output_embeddings()
    if output is None or not getattr(skeleton.config.get_text_config(), "tie_word_embeddings", False):
        return 0
    return 0 if output.weight is skeleton.get_input_embeddings().weight else output.weight.numel()
