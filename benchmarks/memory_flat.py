"""A prompt of a million tokens needs no more memory than one of 8k, the token ids apart."""

from __future__ import annotations

import time

from benchmarks._harness import Metric, gate, peak_bytes
from benchmarks._models import demo_model
from benchmarks._passkey import Prompt, prompt_elsewhere, tokenizer


def run(toy: bool) -> list[Metric]:
    short, long = (512, 4096) if toy else (8192, 1 << 20)
    prompts = [prompt_elsewhere(tokens) for tokens in (short, long)]  # both before the first peak is taken
    model, tok = demo_model(), tokenizer()

    def peak_after(prompt: Prompt) -> int:
        text = tok.decode(model.generate([prompt.ids], 8)[0])
        gate(
            text.split()[:1] == [prompt.answer],
            f"{text!r} is not the passkey {prompt.answer} of {len(prompt.ids):,} tokens",
        )
        return peak_bytes()

    before = peak_after(prompts[0])
    began = time.process_time()
    growth = (peak_after(prompts[1]) - before) / 1e6
    seconds = time.process_time() - began
    note = f"peak {peak_bytes() / 1e6:.0f} MB; {long:,} tokens in {seconds:.1f} s of CPU; the passkey was found"
    return [Metric("memory_flat", growth, "MB", "<=", 64, note)]
