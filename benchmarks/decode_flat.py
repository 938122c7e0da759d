"""A new token costs the same after 32k tokens as after 1k."""

from __future__ import annotations

from benchmarks._harness import Metric, interleaved, paired_ratio
from benchmarks._models import answers_of, check_against_recompute, decode_steps, demo_model, random_prompts, started


def run(toy: bool) -> list[Metric]:
    model = demo_model()
    lengths = {"short": 128, "long": 512} if toy else {"short": 1024, "long": 32768}
    steps, rounds = (2, 3) if toy else (16, 24)
    prompts = {name: random_prompts(model, tokens)[0] for name, tokens in lengths.items()}
    live = {name: started(model, [prompt], 1 << 20) for name, prompt in prompts.items()}
    contenders = {name: lambda generation=one: decode_steps(generation, steps) for name, one in live.items()}
    seconds = interleaved(contenders, rounds)
    for name, generation in live.items():
        check_against_recompute(model, prompts[name], answers_of(generation)[0])
    milliseconds = sorted(seconds["long"])[rounds // 2] / steps * 1e3
    ratio = paired_ratio(seconds["long"], seconds["short"])
    return [Metric("decode_flat", ratio, "x", "<=", 1.05, f"{milliseconds:.2f} ms a token after {lengths['long']:,}")]
