"""Making a prompt of exactly 128k tokens: cut in token space, against growing a text and tokenising it after every sentence.

The text method would take minutes, so its time is integrated from the time of tokenising at sixteen lengths.
"""

from __future__ import annotations

import time

from benchmarks._harness import Metric, fastest, gate, interleaved
from benchmarks._passkey import tokenizer
from infini_eval.api import registry
from infini_eval.datasets.generate import generate
from infini_eval.datasets.plan import GenerateConfig
from infini_eval.datasets.tokenizer import Tokenizer

USES_TORCH = False
POINTS = 16


def run(toy: bool) -> list[Metric]:
    tokens, prompts = (2048, 2) if toy else (131072, 6)
    tok = tokenizer()
    cut, text = prompts_in_token_space(tokens, prompts, tok, verify=False)
    verified, _ = prompts_in_token_space(tokens, prompts, tok, verify=True)
    text_seconds, sentences = text_method(text, tok)
    once = fastest(interleaved({"whole": lambda: tok.encode(text)}, 1 if toy else 3))["whole"]
    note = f"{verified * 1e3:.0f} ms a prompt of {tokens:,}, its check included; {sentences:,} tokenisations {text_seconds:.0f} s"
    return [
        Metric("datagen", text_seconds / verified, "x", ">=", None if toy else 1000, note),
        Metric("datagen_unchecked", text_seconds / cut, "x", note=f"{cut * 1e3:.1f} ms a prompt, not re-tokenised"),
        Metric(
            "datagen_vs_one_tokenisation",
            once / verified,
            "x",
            note="tokenising the prompt once / making and checking it",
        ),
    ]


def prompts_in_token_space(tokens: int, prompts: int, tok: Tokenizer, verify: bool) -> tuple[float, str]:
    """CPU seconds a prompt once the haystack has been tokenised, and one prompt."""
    config = GenerateConfig(context_lengths=(tokens,), depths=(50,), num_prompts=prompts + 1)
    rows, _ = generate(config, tok, registry.load("tasks", "passkey").generator, verify=verify)
    first = next(rows)
    began = time.process_time()
    texts = [row["prompt"] for row in rows]
    seconds = (time.process_time() - began) / prompts
    gate(all(tok.count(text) == tokens for text in texts), f"a prompt does not have exactly {tokens:,} tokens")
    return seconds, first["prompt"]


def text_method(text: str, tok: Tokenizer) -> tuple[float, int]:
    """CPU seconds of tokenising `text` after each of its sentences, and how many those are."""
    sentences = text.count(". ") + 1
    cuts = [text[: len(text) * (2 * point + 1) // (2 * POINTS)] for point in range(POINTS)]
    contenders = {str(number): lambda cut=cut: tok.fast.encode(cut) for number, cut in enumerate(cuts)}
    return sum(fastest(interleaved(contenders, 2)).values()) / POINTS * sentences, sentences
