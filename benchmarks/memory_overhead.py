"""What the compressive memory adds to a layer of the 300M model: memory on against off, in fp32 and in bf16."""

from __future__ import annotations

from benchmarks._harness import Metric, fastest, interleaved, temporary_folder
from benchmarks._models import (
    TOY,
    check_against_recompute,
    config_of,
    layer_300m,
    random_model,
    random_prompts,
    same_weights,
)
from infini_eval.config import ModelSettings

TARGETS = {"float32": 1.08, "bfloat16": 1.15}


def run(toy: bool) -> list[Metric]:
    with temporary_folder() as folder:
        config = config_of(TOY if toy else layer_300m(), folder)
    return [_overhead(config, dtype, toy) for dtype in TARGETS]


def _overhead(config, dtype: str, toy: bool) -> Metric:
    on = random_model(config, ModelSettings(dtype=dtype, device="cpu"))
    models = {"on": on, "off": same_weights(on, "off")}
    prompt = random_prompts(on, 64 if toy else 4096)[0]
    for model in models.values():
        answer = model.generate([prompt], 1, stop_ids=())[0]
        check_against_recompute(model, prompt, answer, 1e-3 if dtype == "float32" else 0.1)
    # logits of all positions: an answer alone would leave out most of the only layer, with and without memory
    contenders = {name: lambda m=model: m.logits(prompt[None]) for name, model in models.items()}
    seconds = fastest(interleaved(contenders, 1 if toy else 5))
    note = f"{seconds['on']:.3f} / {seconds['off']:.3f} CPU s for {len(prompt):,} tokens"
    return Metric(f"memory_overhead_{dtype}", seconds["on"] / seconds["off"], "x", "<=", TARGETS[dtype], note)
