"""Reading 64k tokens costs eight times as much as reading 8k."""

from __future__ import annotations

from benchmarks._harness import Metric, fastest, interleaved
from benchmarks._models import check_against_recompute, demo_model, random_prompts


def run(toy: bool) -> list[Metric]:
    model = demo_model()
    short, long = (256, 2048) if toy else (8192, 65536)
    prompts = {tokens: random_prompts(model, tokens)[0] for tokens in (short, long)}

    def read(tokens: int) -> list[int]:
        return model.generate([prompts[tokens]], 1, stop_ids=())[0]

    for tokens in prompts:
        check_against_recompute(model, prompts[tokens], read(tokens))
    # the short one eight times in a row: both contenders last equally long, so both meet the same disturbances
    contenders = {"short": lambda: [read(short) for _ in range(8)], "long": lambda: read(long)}
    seconds = fastest(interleaved(contenders, 1 if toy else 3))
    rate = long / seconds["long"]
    ratio = 8 * seconds["long"] / seconds["short"]
    return [Metric("prefill_linear", ratio, "x", "<=", 8.4, f"{rate / 1e3:.1f}k tokens a CPU second at {long:,}")]
