"""Encoding a text that is too long for one piece: overlapping windows, joined where both agree on the tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from infini_eval.errors import DataError

Encoded = tuple[NDArray[np.int32], NDArray[np.int64]]
EncodeWindow = Callable[[str], Encoded]

WINDOW_CHARS = 200_000  # encodings of 1m characters one after the other were seen to leave 1.5 GB of scattered memory
OVERLAP_CHARS = 4_096
AGREEMENT_TOKENS = 16  # equal neighbours that make a joint; a tokenizer's view is far shorter than that


def encode_in_windows(encode: EncodeWindow, text: str, *, window: int = WINDOW_CHARS) -> Encoded:
    """Ids [T] and offsets [T, 2] of a long text, equal to those of encoding it in one piece."""
    parts = list(windows(encode, text, window=window))
    return np.concatenate([ids for ids, _ in parts]), np.concatenate([offsets for _, offsets in parts])


def windows(encode: EncodeWindow, text: str, *, window: int = WINDOW_CHARS) -> Iterator[Encoded]:
    """Ids and offsets of a long text, part by part."""
    return _windows(encode, _cut(text, window), OVERLAP_CHARS)


def encode_stream(
    encode: EncodeWindow, parts: Iterable[str], *, window: int = WINDOW_CHARS, overlap: int = OVERLAP_CHARS
) -> Iterator[NDArray[np.int32]]:
    """The same, for a text that arrives in parts: chunks of ids, holding about one window of text at a time."""
    for ids, _ in _windows(encode, _regroup(parts, window), overlap):
        yield ids


def _cut(text: str, size: int) -> Iterator[str]:
    for start in range(0, len(text), size):
        yield text[start : start + size]


def _regroup(parts: Iterable[str], size: int) -> Iterator[str]:
    """Pieces of `size` characters, whatever the sizes of the parts."""
    held: list[str] = []
    length = 0
    for part in parts:
        held.append(part)
        length += len(part)
        while length >= size:
            joined = "".join(held)
            yield joined[:size]
            held, length = [joined[size:]], length - size
    if length:
        yield "".join(held)


def _windows(encode: EncodeWindow, pieces: Iterable[str], overlap: int) -> Iterator[Encoded]:
    """Encode each piece after the end of the one before; a piece's last tokens wait for the next to confirm them."""
    tail_text, base = "", 0  # the overlap carried over, and where it starts in the whole text
    held: Encoded | None = None
    for piece in pieces:
        text = tail_text + piece
        ids, offsets = encode(text)
        offsets = offsets + base
        if held is not None:
            held, (ids, offsets) = _join(held, (ids, offsets), base + len(tail_text))
            yield held
        tail_text = text[-overlap:] if len(text) > overlap else text
        base = base + len(text) - len(tail_text)
        cut = int(np.searchsorted(offsets[:, 0], base))
        yield ids[:cut], offsets[:cut]
        held = (ids[cut:], offsets[cut:])
    if held is not None:
        yield held


def _join(old: Encoded, new: Encoded, old_end: int) -> tuple[Encoded, Encoded]:
    """Split two encodings of one overlap at a character where the next AGREEMENT_TOKENS tokens are equal in both."""
    old_keys = np.column_stack([old[1], old[0]])
    new_keys = np.column_stack([new[1], new[0]])
    first = int(np.searchsorted(old_keys[:, 0], (old_keys[0, 0] + old_end) // 2)) if len(old_keys) else 0
    for i in range(first, len(old_keys) - AGREEMENT_TOKENS):
        j = int(np.searchsorted(new_keys[:, 0], old_keys[i, 0]))
        run = new_keys[j : j + AGREEMENT_TOKENS]
        starts_a_span = i == 0 or old_keys[i - 1, 0] < old_keys[i, 0]
        if starts_a_span and np.array_equal(run, old_keys[i : i + AGREEMENT_TOKENS]):
            return (old[0][:i], old[1][:i]), (new[0][j:], new[1][j:])
    raise DataError(
        f"the tokenizer does not agree with itself on an overlap of {len(old_keys)} tokens; the text cannot be encoded "
        "in windows",
        next_step="a text without spaces (one endless word) is the usual cause; use a haystack of words",
    )
