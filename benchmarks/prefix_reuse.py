"""Eleven depths of one haystack at 16k tokens: what they share read once, against each prompt read whole, same answers."""

from __future__ import annotations

from typing import Any

from benchmarks._harness import DEMO, Metric, fastest, gate, interleaved
from benchmarks._passkey import Prompt, shared_haystack, tokenizer
from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.config import ModelSettings
from infini_eval.engine.batching import plan_batches
from infini_eval.engine.native_model import NativeModel
from infini_eval.engine.prefixes import border_digests

DEPTHS = tuple(range(0, 101, 10))
SMALL = 2  # rows of a batch at 16k where nothing is shared: what is shared then comes from kept states


def run(toy: bool) -> list[Metric]:
    prompts = shared_haystack(1024 if toy else 16384, DEPTHS[:: 5 if toy else 1])
    cold, warm = (
        NativeModel.load(Checkpoint(DEMO), ModelSettings(device="cpu", prefix_cache_gb=gb)) for gb in (0.0, 1.0)
    )
    contenders: dict[str, tuple[NativeModel, dict[str, Any]]] = {
        "cold": (cold, {}),
        "warm": (warm, {}),
        "kept": (warm, {"batch_size": SMALL}),
    }
    check({name: answers(model, prompts, **settings) for name, (model, settings) in contenders.items()}, prompts)
    runs = {
        name: lambda model=model, settings=settings: answers(model, prompts, **settings)
        for name, (model, settings) in contenders.items()
    }
    least = fastest(interleaved(runs, 1 if toy else 3))
    ideal = computed_share(cold, prompts)
    tokens = sum(len(prompt.ids) for prompt in prompts)
    times = f"{least['cold']:.2f} / {least['warm']:.2f} s of CPU"
    note = f"{times}; {ideal:.1%} of {tokens:,} tokens computed (1 / {1 / ideal:.2f})"
    return [
        Metric("prefix_reuse", least["cold"] / least["warm"], "x", ">=", None if toy else 1.55, note),
        Metric(
            "prefix_reuse_kept",
            least["cold"] / least["kept"],
            "x",
            note=f"batches of {SMALL}, states kept between them",
        ),
    ]


def answers(model: NativeModel, prompts: list[Prompt], **settings: Any) -> list[list[int]]:
    return model.generate([prompt.ids for prompt in prompts], 15, **settings)


def check(found: dict[str, list[list[int]]], prompts: list[Prompt]) -> None:
    gate(found["warm"] == found["cold"], "shared prefixes change an answer")
    gate(found["kept"] == found["cold"], "kept states change an answer")
    decode = tokenizer().decode
    texts = [decode(tokens) for tokens in found["cold"]]
    wrong = [text for text, prompt in zip(texts, prompts, strict=True) if prompt.answer not in text]
    gate(not wrong, f"{len(wrong)} passkeys were not found: {wrong}")


def computed_share(model: NativeModel, prompts: list[Prompt]) -> float:
    """Tokens computed where everything shared is read once, over all tokens."""
    length = model.config.segment_length
    assert length is not None
    lengths = [len(prompt.ids) for prompt in prompts]
    digests = [border_digests(prompt.ids, length) for prompt in prompts]
    batches = plan_batches(lengths, length, len(prompts), prefixes=digests)  # the group is one batch, nothing is kept
    return sum(batch.cost for batch in batches) / sum(lengths)
