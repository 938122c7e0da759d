"""The 300M shape with random weights on one CPU thread: prompts of 1k tokens, in bf16 and fp32, against a bare matmul."""

from __future__ import annotations

import time

import torch

from benchmarks._harness import Metric, fastest, interleaved, temporary_folder
from benchmarks._models import (
    TOY,
    answers_of,
    check_against_recompute,
    config_of,
    decode_steps,
    full_300m,
    random_model,
    random_prompts,
    started,
)
from infini_eval.config import ModelConfig, ModelSettings
from infini_eval.engine.generation import BatchGeneration

DECODED = 8
MATMULS = 12  # about half as long as a prefill: both meet the same disturbances


def run(toy: bool) -> list[Metric]:
    with temporary_folder() as folder:
        config = config_of(TOY if toy else full_300m(), folder)
    return [_rate(config, dtype, toy) for dtype in ("float32", "bfloat16")]


@torch.inference_mode()
def _rate(config: ModelConfig, dtype: str, toy: bool) -> Metric:
    model = random_model(config, ModelSettings(dtype=dtype, device="cpu"))
    prompt = random_prompts(model, 64 if toy else 1024)[0]
    generations: list[BatchGeneration] = []

    def prefill() -> None:
        generations[:] = [started(model, [prompt], 1 << 20)]

    flops = 2 * sum(
        weight.numel() for layer in model.llama.layers for weight in (layer.qkv, layer.o, layer.gate_up, layer.down)
    )
    layer, rows = model.llama.layers[0], torch.randn(len(prompt), config.hidden_size).to(model.llama.dtype)
    contenders = {
        "prefill": prefill,
        "matmul": lambda: [rows @ layer.gate_up.T for _ in range(MATMULS)],
    }
    seconds = fastest(interleaved(contenders, 1 if toy else 3))
    began = time.process_time()
    decode_steps(generations[0], DECODED)
    decode = (time.process_time() - began) / DECODED
    answer = answers_of(generations[0])[0][:2]
    check_against_recompute(model, prompt, answer, 1e-3 if dtype == "float32" else 0.1)
    bare = MATMULS * 2 * layer.gate_up.numel() * len(prompt) / seconds["matmul"]
    reached = flops * len(prompt) / seconds["prefill"]
    rate = len(prompt) / seconds["prefill"]
    note = f"{rate:.0f} tokens a CPU second; {decode * 1e3:.0f} ms a new token; matmul {bare / 1e9:.0f} GFLOP/s"
    return Metric(f"share_of_matmul_300m_{dtype}", reached / bare, "", ">=", None, note)
