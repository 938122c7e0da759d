"""Which heads carry the answer: greedy answers with only the first k heads of the ranking reading, and with all but them.

The ranking comes from log-probabilities of given tokens; here the model answers by itself, so a ranking that is wrong,
or heads that stand in for each other, show.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from infini_eval.diagnosis.ablation import greedy_answers
from infini_eval.diagnosis.sample import Diagnoser, SampleDiagnosis
from infini_eval.scorers.text_match import exact_digits

MOST = 4  # heads


def confirm(
    diagnoser: Diagnoser, done: Sequence[SampleDiagnosis], ranking: Sequence[tuple[int, int]]
) -> list[dict[str, Any]]:
    """Rows of {name, heads, correct, n}: all heads read, only the first k, all but the first k, none."""
    layers, heads = len(diagnoser.model.llama.layers), diagnoser.model.llama.heads
    variants: list[tuple[str, list[tuple[int, int]], torch.Tensor]] = []
    for k in range(min(MOST, len(ranking)) + 1):
        chosen = list(ranking[:k])
        only = torch.zeros(layers, heads)
        for layer, head in chosen:
            only[layer, head] = 1
        variants += [("only", chosen, only), ("all but", chosen, 1 - only)]
    keep_BLN = torch.stack([keep for _, _, keep in variants])
    right = [0] * len(variants)
    for item in done:
        answers = greedy_answers(diagnoser.model, item.question, keep_BLN, len(item.answer) + 1)
        for row, tokens in enumerate(answers):
            right[row] += _is_right(diagnoser, item, tokens)
    return [
        {"reading": name, "heads": [list(pair) for pair in chosen], "correct": correct, "n": len(done)}
        for (name, chosen, _), correct in zip(variants, right, strict=True)
    ]


def _is_right(diagnoser: Diagnoser, item: SampleDiagnosis, tokens: list[int]) -> bool:
    end = diagnoser.tokenizer.eos_id
    text = diagnoser.tokenizer.decode(tokens[: tokens.index(end)] if end in tokens else tokens)
    return bool(exact_digits(text, item.item.sample).value)
