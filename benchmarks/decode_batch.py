"""New tokens a second of 16 sequences together, against one alone."""

from __future__ import annotations

from benchmarks._harness import Metric, gate, interleaved, paired_ratio, temporary_folder
from benchmarks._models import TOY, answers_of, config_of, decode_steps, random_model, random_prompts, shape, started
from infini_eval.config import ModelSettings

ROWS = 16


def run(toy: bool) -> list[Metric]:
    sizes = TOY if toy else shape(512, 1408, 6, 8, 8, 8192, 256)
    with temporary_folder() as folder:
        model = random_model(config_of(sizes, folder), ModelSettings(dtype="float32", device="cpu"))
    steps, rounds = (2, 2) if toy else (8, 12)
    prompts = random_prompts(model, 40 if toy else 700, ROWS)
    batch = started(model, prompts, 1 << 20)
    singles = [started(model, [prompt], 1 << 20) for prompt in prompts[:2]]
    contenders = {"batch": lambda: decode_steps(batch, steps), "alone": lambda: decode_steps(singles[0], steps)}
    seconds = interleaved(contenders, rounds)
    decode_steps(singles[1], steps * rounds)
    gate(
        answers_of(batch)[:2] == [answers_of(single)[0] for single in singles],
        "a row of a batch is answered differently from the same row alone",
    )
    ratio = ROWS / paired_ratio(seconds["batch"], seconds["alone"])
    rate = ROWS * steps / min(seconds["batch"])
    return [Metric("decode_batch", ratio, "x", ">=", 4, f"{rate:.0f} tokens a CPU second at batch {ROWS}")]
