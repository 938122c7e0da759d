"""Scores of 131,072 tokens and of a million: the peak of memory streamed, beside that of the logits of all positions."""

from __future__ import annotations

import time

import numpy as np
import torch

from benchmarks._harness import Metric, gate, peak_bytes
from benchmarks._models import demo_model, random_prompts

AGREE = 1e-5


def run(toy: bool) -> list[Metric]:
    """The resident peak only grows, so the smaller comes first."""
    short, long = (2048, 4096) if toy else (1 << 17, 1 << 20)
    model = demo_model()
    rows = [random_prompts(model, tokens)[0] for tokens in (short, long)]
    peaks, scores, seconds = [], [], []
    for row in rows:
        began = time.process_time()
        scores.append(model.score([row], [len(row) - 1])[0].logprobs)
        seconds.append(time.process_time() - began)
        peaks.append(peak_bytes() / 1e6)
    targets_T1 = torch.from_numpy(rows[0][1:].astype(np.int64))[:, None]
    logits_TV = model.logits(rows[0][None])[0, :-1]
    peaks.append(peak_bytes() / 1e6)
    chosen_T = logits_TV.gather(1, targets_T1)[:, 0] - logits_TV.logsumexp(dim=1)
    difference = (chosen_T - torch.from_numpy(scores[0])).abs().max().item()
    gate(difference <= AGREE, f"scores differ by {difference:.2g} from those of the logits")
    note = f"logits {peaks[2]:.0f} MB at {short:,} tokens; they agree to {difference:.1g}"
    return [
        Metric("score_peak", peaks[0], "MB", "<=", 400, f"{short:,} tokens in {seconds[0]:.1f} s of CPU; {note}"),
        Metric("score_growth", peaks[1] - peaks[0], "MB", "<=", 64, f"{long:,} tokens: {peaks[1]:.0f} MB"),
    ]
