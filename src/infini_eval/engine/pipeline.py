"""Keeps every stage busy: several batches in flight, one unit of each in turn, in an order all stages share.

A prefill chunk needs no answer from the later stages, so one long prompt alone fills the pipeline: stage 0 computes
chunk i + 1 while stage 1 computes chunk i. A decode step needs the token of the one before, so decoding fills it when
as many batches are in flight as there are stages. One stage is the same loop without anything to send.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from infini_eval.engine.generation import Completion, Generation
from infini_eval.engine.links import Links

Key = TypeVar("Key")


def run_pipeline(
    work: Iterator[tuple[Key, Generation]], links: Links, on_tokens: Callable[[int], None] | None = None
) -> Iterator[tuple[Key, list[Completion]]]:
    """Run the generations that `work` yields (the same on every stage) and yield each one's completions when it ends.

    on_tokens: called with the number of tokens of each unit, for progress.
    """
    slots: list[tuple[Key, Generation]] = []
    exhausted = False
    while True:
        while not exhausted and len(slots) < links.stages:
            item = next(work, None)
            exhausted = item is None
            if item is not None:
                slots.append(item)
        if not slots:
            break
        key, generation = slots.pop(0)
        if generation.awaits_tokens:
            generation.absorb()
        if generation.finished:
            yield key, generation.completions
            continue
        tokens = generation.run_unit()
        if on_tokens is not None:
            on_tokens(tokens)
        slots.append((key, generation))
    links.flush()
