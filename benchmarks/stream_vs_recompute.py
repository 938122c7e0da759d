"""An answer of 15 tokens to 8k of context: streamed, against the whole context again for every token."""

from __future__ import annotations

import torch

from benchmarks import _passkey
from benchmarks._harness import Metric, answered, fastest, gate
from benchmarks._models import demo_model
from benchmarks._recompute import greedy_by_recompute

NEW_TOKENS = 15


def run(toy: bool) -> list[Metric]:
    model = demo_model()
    prompt = _passkey.prompt(512 if toy else 8192).ids
    ids = torch.from_numpy(prompt.astype("int64"))

    def recompute() -> list[int]:
        with torch.inference_mode():
            return greedy_by_recompute(model.llama, ids, NEW_TOKENS)

    def stream() -> list[int]:
        return model.generate([prompt], NEW_TOKENS, stop_ids=())[0]

    def prefill_again() -> list[int]:
        answer: list[int] = []
        for _ in range(NEW_TOKENS):
            answer += model.generate([[*prompt.tolist(), *answer]], 1, stop_ids=())[0]
        return answer

    contenders = {"recompute": recompute, "stream": stream, "prefill_again": prefill_again}
    times, answers = answered(contenders, 1 if toy else 3)
    gate(answers["stream"] == answers["recompute"], "streaming and full recompute give different tokens")
    gate(answers["prefill_again"] == answers["recompute"], "repeated prefill and full recompute give different tokens")
    seconds = fastest(times)
    note = f"{seconds['recompute']:.2f} s / {seconds['stream']:.3f} s of CPU"
    return [
        Metric("stream_vs_recompute", seconds["recompute"] / seconds["stream"], "x", ">=", 18, note),
        Metric("stream_vs_own_prefill", seconds["prefill_again"] / seconds["stream"], "x", note="at most 15"),
    ]
