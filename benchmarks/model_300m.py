"""The 300M shape with random weights on one CPU thread: prompts of 1k tokens, in bf16 and fp32, against a bare matmul."""

from __future__ import annotations

import time

import torch

from benchmarks._harness import Metric, fastest, interleaved, temporary_folder
from benchmarks._models import TOY, check_against_recompute, config_of, full_300m, random_model, random_prompts
from infini_eval.config import ModelConfig, ModelSettings


def run(toy: bool) -> list[Metric]:
    with temporary_folder() as folder:
        config = config_of(TOY if toy else full_300m(), folder)
    return [_rate(config, dtype, toy) for dtype in ("float32", "bfloat16")]


def _rate(config: ModelConfig, dtype: str, toy: bool) -> Metric:
    model = random_model(config, ModelSettings(dtype=dtype, device="cpu"))
    prompt = random_prompts(model, 64 if toy else 1024)[0]
    answer = model.generate([prompt], 2, stop_ids=())[0]
    check_against_recompute(model, prompt, answer, 1e-3 if dtype == "float32" else 0.1)
    flops = 2 * sum(
        weight.numel() for layer in model.llama.layers for weight in (layer.qkv, layer.o, layer.gate_up, layer.down)
    )
    layer, rows = model.llama.layers[0], torch.randn(len(prompt), config.hidden_size).to(model.llama.dtype)
    contenders = {
        "prefill": lambda: model.generate([prompt], 1, stop_ids=()),
        "matmul": lambda: [rows @ layer.gate_up.T for _ in range(4)],
    }
    seconds = fastest(interleaved(contenders, 1 if toy else 3))
    bare = 4 * 2 * layer.gate_up.numel() * len(prompt) / seconds["matmul"]
    reached = flops * len(prompt) / seconds["prefill"]
    began = time.process_time()
    model.generate([prompt], 9, stop_ids=())
    decode = (time.process_time() - began - seconds["prefill"]) / 8
    rate = len(prompt) / seconds["prefill"]
    note = f"{rate:.0f} tokens a CPU second; {decode * 1e3:.0f} ms a new token; matmul {bare / 1e9:.0f} GFLOP/s"
    return Metric(f"share_of_matmul_300m_{dtype}", reached / bare, "", ">=", None, note)
