"""A prompt's size in characters, turned into tokens by the haystack's own text."""

from __future__ import annotations

from collections.abc import Iterable

from infini_eval.datasets.tokenizer import Tokenizer

MEASURED_CHARS = 1_000_000  # a longer text is taken to have as many characters a token as this much of it


def tokens_of_characters(characters: int, parts: Iterable[str], tokenizer: Tokenizer) -> int:
    """The tokens that about `characters` characters of the text have (special tokens not counted), at least 1."""
    wanted = min(characters, MEASURED_CHARS)
    pieces, held = [], 0
    for part in parts:
        pieces.append(part)
        held += len(part)
        if held >= wanted:
            break
    text = "".join(pieces)[:wanted]
    if not text:
        return characters  # an empty source: building the haystack says so
    return max(1, round(tokenizer.count(text, add_special_tokens=False) * characters / len(text)))
