"""A batch whose prompts share prefixes: each whole segment is computed once for all prompts that are alike up to its end.

At a border where prompts part, their states are copies of the one they shared; a prompt whose prefix an earlier batch
left in the cache joins at its border. Every pipeline stage derives the same from the digests, so nothing is sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from infini_eval.engine.batching import PrefillStep
from infini_eval.engine.prefix_cache import PrefixCache, Snapshot
from infini_eval.engine.prefixes import Stretch, digest_at, stretches
from infini_eval.models.state import BatchState, Memories


@dataclass(frozen=True)
class Prefixes:
    """The border digests of a batch's prompts, the prefixes to keep as (border, digest), and what is kept so far."""

    digests: Sequence[bytes]
    saves: Sequence[tuple[int, bytes]]
    cache: PrefixCache


class SharedPrefill:
    """Which rows a batch's state has from step to step."""

    def __init__(self, prefixes: Prefixes, lengths: Sequence[int], segment_length: int) -> None:
        self._digests, self._cache, self._segment_length = prefixes.digests, prefixes.cache, segment_length
        # the last token of a prompt is always computed, since the first new token is drawn from it
        self._starts = [
            self._restored(digests, (length - 1) // segment_length)
            for digests, length in zip(prefixes.digests, lengths, strict=True)
        ]
        self._saves = [(border, digest) for border, digest in prefixes.saves if digest not in self._cache]
        self._places: Sequence[int | None] = [None] * len(lengths)

    @property
    def stretches(self) -> list[Stretch]:
        starts = [0 if start is None else start.segments for start in self._starts]
        return stretches(self._digests, starts, [border for border, _ in self._saves])

    def before(self, step: PrefillStep, state: BatchState) -> None:
        """Give `state` the rows that `step` reads."""
        self._branch(state, step.rows, step.start // self._segment_length)
        self._places = step.places

    def after(self, step: PrefillStep, state: BatchState) -> None:
        """Keep what later batches start from, where `step` has reached it."""
        border, rest = divmod(step.start + step.tokens, self._segment_length)
        if rest or not step.segments:
            return
        for wanted, digest in self._saves:
            alike = [prompt for prompt, own in enumerate(self._digests) if digest_at(own, border) == digest]
            rows = [row for prompt in alike if (row := step.places[prompt]) is not None]
            if wanted == border and rows:
                self._cache.save(digest, border, state.snapshot(rows[0]))

    def part(self, state: BatchState) -> None:
        """After the last step: a row for each prompt, also for those that are alike to the end."""
        whole = state.cursor.segments[0]
        self._branch(state, range(len(self._places)), whole)
        self._places = range(len(self._places))

    def _restored(self, digests: bytes, at_most: int) -> Snapshot | None:
        found = self._cache.longest(digests, at_most)
        return None if found is None else self._cache.restore(found)

    def _branch(self, state: BatchState, prompts: Sequence[int], border: int) -> None:
        if border == 0:
            return  # fresh rows, which have no memory yet
        sources: list[int | Memories] = []
        for prompt in prompts:
            place, start = self._places[prompt], self._starts[prompt]
            if place is None:
                assert start is not None and start.segments == border, "a row joins where its snapshot was taken"
                sources.append(start.memories)
            else:
                sources.append(place)
        if sources != [*range(state.cursor.batch)]:
            state.branch(sources, border)


def reused_tokens(steps: Sequence[PrefillStep], lengths: Sequence[int]) -> list[int]:
    """For each prompt its tokens that no step reads for it, but for another prompt or an earlier batch."""
    reused = list(lengths)
    for step in steps:
        for row, count in zip(step.rows, step.counts, strict=True):
            reused[row] -= count
    return reused
