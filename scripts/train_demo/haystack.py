"""Haystacks with token offsets, so that a needle can be put at an exact token and the length be set in tokens."""

from __future__ import annotations

import random
from dataclasses import dataclass

from scripts.train_demo import text
from tokenizers import Tokenizer

KINDS = ("template", "docs", "filler", "salad")
KIND_WEIGHTS = (0.40, 0.25, 0.20, 0.15)
SLACK = 48  # tokens beyond the wanted size, because tokens merge at the borders of the cut
SNAP_CHARACTERS = 200  # how far the end of a sentence may lie from the wanted place


@dataclass
class Haystack:
    """A text with the character offset of each token; a haystack starts at token `first`."""

    text: str
    starts: list[int]
    first: int = 0

    @classmethod
    def tokenized(cls, content: str, tokenizer: Tokenizer) -> Haystack:
        return cls(content, [start for start, _ in tokenizer.encode(content).offsets])

    @property
    def size(self) -> int:
        """Tokens from the first one on."""
        return len(self.starts) - self.first

    def cut(self, size: int, depth: float, snap: bool) -> tuple[str, str]:
        """The first `size` tokens, split at `depth`; with `snap` the split moves to the next end of a sentence."""
        middle = self.starts[self.first + round(size * depth)]
        begin, end = self.starts[self.first], self.starts[self.first + size]
        if snap and 0 < depth < 1:
            stop = self.text.find(". ", middle, min(end, middle + SNAP_CHARACTERS))
            middle = stop + (middle % 2) if stop >= 0 else middle  # half of them keep the sentence's own period
        return self.text[begin:middle], self.text[middle:end]

    def window(self, size: int, rng: random.Random) -> Haystack:
        """A haystack of at least `size` tokens from a random place; a text that is too short is repeated."""
        if size < len(self.starts):
            return Haystack(self.text, self.starts, rng.randrange(len(self.starts) - size))
        repeats = size // len(self.starts) + 1
        starts = [start + i * len(self.text) for i in range(repeats) for start in self.starts]
        return Haystack(self.text * repeats, starts)


class Haystacks:
    """One long text of every kind but filler, which is made anew for each sequence."""

    def __init__(self, tokenizer: Tokenizer, rng: random.Random, held_out: bool, size: int) -> None:
        self.tokenizer = tokenizer
        texts = {
            "template": text.template_text(rng, size // 12),
            "docs": text.doc_text(rng, held_out),
            "salad": text.salad_text(rng, size // 4),
        }
        self.pools = {kind: Haystack.tokenized(content, tokenizer) for kind, content in texts.items()}

    def draw(self, rng: random.Random, size: int, kind: str | None) -> Haystack:
        """A haystack that can be cut to `size` tokens and some more, of the given kind or of a random one."""
        kind_or_random = kind or rng.choices(KINDS, KIND_WEIGHTS)[0]
        if kind_or_random != "filler":
            return self.pools[kind_or_random].window(size + SLACK, rng)
        paragraph = text.CLASSIC_FILLER + " " if kind else text.filler_paragraph(rng)
        offset = rng.randrange(len(paragraph))
        tokens = len(self.tokenizer.encode(paragraph).ids)
        repeats = (size + SLACK) // max(tokens - 2, 1) + 4  # fewer tokens than alone: some merge with the next copy
        return Haystack.tokenized((paragraph * repeats)[offset:], self.tokenizer)
