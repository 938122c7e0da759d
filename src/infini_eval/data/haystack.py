"""A haystack: text tokenised once, with the places where it may be cut, the tokens up to each, and depths."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from infini_eval.data.tokenizer import Tokenizer
from infini_eval.errors import DataError
from infini_eval.foreign import shown

# A cut is a single space after a word or a sentence: the text before it ends there, the text after it begins with the
# space, so that both parts and whatever is put between them keep the tokens they have in one piece.
CUT = re.compile(r"(?<=[^\W_]) (?=[^\W_])|(?<=[.!?]) (?=[^\W_])")
SENTENCE_ENDS = ".!?"
NUMBER = re.compile(r"(?<![^\W_])\d+(?![^\W_])")
BLOCK_CHARS = 65_536
LONGEST_STRETCH = 1 << 22  # characters; the longest word of any text is far shorter
BATCH_BLOCKS = 16  # tokenised side by side
CHARS_A_TOKEN = 4
POOL_CHARS = BLOCK_CHARS // 2  # a pool is known by its beginning, which does not depend on how much is read of it
CONTEXT_CHARS = 256  # tokenised before each block, so that a block's first tokens are those of the running text


@dataclass(frozen=True)
class Haystack:
    """Text with its cuts: `cut_chars[i]` is a cut's character, `cut_tokens[i]` the tokens of text[:cut] ([C] int64).

    `after_sentence` [C] bool tells cuts after a sentence from those after a word; `sentences` and `words` number them.

    `name` is the source's; `unique_tokens` is how many of its tokens are not a repetition of earlier ones (None: all,
    or the source `repeats` by nature); `period` is the characters after which the text starts again (0: it does not).
    """

    text: str
    cut_chars: NDArray[np.int64]
    cut_tokens: NDArray[np.int64]
    after_sentence: NDArray[np.bool_]
    name: str
    unique_tokens: int | None = None
    repeats: bool = False
    period: int = 0

    @property
    def tokens(self) -> int:
        """Tokens between the first and the last cut: the longest slice."""
        return int(self.cut_tokens[-1] - self.cut_tokens[0])

    @property
    def distinct_tokens(self) -> int:
        """Tokens that are not a repetition of others; those of a source that repeats by nature are all counted."""
        return self.tokens if self.unique_tokens is None else self.unique_tokens

    def unique_fraction(self, tokens: int) -> float:
        """The share of `tokens` tokens in a row that are not a repetition; 1 where nothing had to be repeated."""
        return 1.0 if self.unique_tokens is None or tokens <= self.unique_tokens else self.unique_tokens / tokens

    @cached_property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]

    @cached_property
    def pool(self) -> str:
        """Names the text that haystacks are cut from, whatever was read of it and with any tokenizer (16 hex digits)."""
        return hashlib.sha256(self.text[:POOL_CHARS].encode()).hexdigest()[:16]

    def distinct_chars(self, start: int, end: int) -> tuple[int, int]:
        """The characters of the pool that a stretch of it says; of repeated text, where it is said first.

        A stretch that runs over the end of a repeated text counts as the whole of it.
        """
        if not self.period:
            return start, end
        first = start % self.period
        whole = end - start >= self.period or first + end - start > self.period
        return (0, self.period) if whole else (first, first + end - start)

    @cached_property
    def numbers(self) -> tuple[NDArray[np.int64], list[str]]:
        """Every number standing alone: its character and its text."""
        numbers = [(match.start(), match.group()) for match in NUMBER.finditer(self.text)]
        return np.array([start for start, _ in numbers], dtype=np.int64), [number for _, number in numbers]

    def slice(self, first: int, last: int) -> str:
        """The text from cut `first` to cut `last`; it begins with a space and ends in a word."""
        return self.text[self.cut_chars[first] : self.cut_chars[last]]

    def slice_tokens(self, first: int, last: int) -> int:
        return int(self.cut_tokens[last] - self.cut_tokens[first])

    @cached_property
    def words(self) -> NDArray[np.int64]:
        return np.flatnonzero(~self.after_sentence)

    @cached_property
    def sentences(self) -> NDArray[np.int64]:
        """Where the text has no sentences, cuts after words stand in for them."""
        ends = np.flatnonzero(self.after_sentence)
        return ends if len(ends) else self.words

    def cut_at(self, token: float, among: NDArray[np.int64] | None = None) -> int:
        """The cut (of all, or of those in `among`) nearest to a token count; the earlier one of two equally near."""
        tokens = self.cut_tokens if among is None else self.cut_tokens[among]
        after = int(np.searchsorted(tokens, token))
        if after == len(tokens) or (after > 0 and token - tokens[after - 1] <= tokens[after] - token):
            after -= 1
        return after if among is None else int(among[after])

    def cut_exactly(self, token: int) -> int | None:
        """The cut after a word with exactly that many tokens before it; None where there is none."""
        at = int(np.searchsorted(self.cut_tokens, token))
        if at == len(self.cut_tokens) or self.cut_tokens[at] != token:
            return None
        return None if self.after_sentence[at] else at

    def numbers_between(self, first: int, last: int) -> set[str]:
        """The numbers in the text between two cuts."""
        starts, numbers = self.numbers
        low, high = np.searchsorted(starts, [self.cut_chars[first], self.cut_chars[last]])
        return set(numbers[low:high])

    def identity(self, first: int) -> str:
        """Names the haystack that starts at a cut: prompts of equal identity share their text (16 hex digits)."""
        return hashlib.sha256(f"{self.fingerprint}:{self.cut_chars[first]}".encode()).hexdigest()[:16]


def build_haystack(
    parts: Iterable[str],
    tokenizer: Tokenizer,
    tokens: int,
    *,
    name: str,
    needed: int | None = None,
    allow_repeat: bool = False,
    repeats: bool = False,
) -> Haystack:
    """Tokenise text until it has `tokens` tokens; block by block, so that no encoding of the whole is ever held.

    `needed` (None: all of them) is what the longest prompt takes: a source that ends before it is an error, or with
    `allow_repeat` starts again, and the haystack says how much of it is unique. `repeats`: it does so by nature.
    """
    needed = tokens if needed is None else needed
    builder = _Builder(tokenizer)
    blocks = _blocks(parts, name)
    while not builder.enough(tokens) and (some := list(itertools.islice(blocks, builder.blocks_for(tokens)))):
        builder.add(some, tokens)
    unique = builder.available
    if unique <= 0:
        raise DataError(f"the haystack {name} has no two words in a row", valid="text with words separated by spaces")
    if builder.enough(needed):
        return builder.finish(name, None, repeats)
    if not allow_repeat:
        raise DataError(
            f"the haystack {name} is too short: it has {unique:,} tokens, a prompt needs {needed:,} ({unique / needed:.1%})",
            next_step="add text, or pass --allow-repeat to repeat it (the fraction is recorded)",
        )
    builder.repeat(tokens)
    return builder.finish(name, None if repeats else unique, repeats)


class _Builder:
    """Collects text and cuts; blocks begin at a cut, so that each is tokenised with a little text before it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.texts: list[str] = []
        self.chars: list[NDArray[np.int64]] = []
        self.tokens: list[NDArray[np.int64]] = []
        self.sentence_ends: list[NDArray[np.bool_]] = []
        self.length = 0
        self.count = 0
        self.first: int | None = None
        self.last = 0
        self.period = 0

    @property
    def available(self) -> int:
        """Tokens from the first cut to the last one."""
        return 0 if self.first is None else self.last - self.first

    def enough(self, tokens: int) -> bool:
        return self.available >= tokens

    def blocks_for(self, tokens: int) -> int:
        """How many blocks to tokenise at once: about what is missing, at most BATCH_BLOCKS."""
        return min(BATCH_BLOCKS, 1 + (tokens - self.available) * CHARS_A_TOKEN // BLOCK_CHARS)

    def add(self, blocks: Sequence[str], tokens: int) -> None:
        """Tokenise blocks side by side, and add them one after the other until there are `tokens` tokens."""
        befores = []
        tail = self.texts[-1] if self.texts else ""
        for block in blocks:
            before = tail[-CONTEXT_CHARS:]
            befores.append(before[max(0, before.find(" ")) :])
            tail = block
        texts = [before + block for before, block in zip(befores, blocks, strict=True)]
        for before, block, (_, offsets) in zip(befores, blocks, self.tokenizer.encode_windows(texts), strict=True):
            self._add(block, offsets - len(before))
            if self.enough(tokens):
                return

    def _add(self, block: str, offsets: NDArray[np.int64]) -> None:
        own = offsets[offsets[:, 1] > 0]
        cuts = np.array([match.start() for match in CUT.finditer(block)], dtype=np.int64)
        ends = np.maximum.accumulate(own[:, 1])
        before_cut = np.searchsorted(ends, cuts, side="right")
        if len(own):  # no token may reach over the cut into the next word
            following = own[np.minimum(before_cut, len(own) - 1), 0]
            clean = (before_cut == len(own)) | (following >= cuts)
            cuts, before_cut = cuts[clean], before_cut[clean]
        if len(cuts):
            letters = np.frombuffer(block.encode("utf-32-le"), dtype=np.uint32)
            self.sentence_ends.append(np.isin(letters[cuts - 1], [ord(end) for end in SENTENCE_ENDS]))
            self.chars.append(cuts + self.length)
            self.tokens.append(before_cut + self.count)
            self.first = int(self.tokens[0][0]) if self.first is None else self.first
            self.last = int(self.tokens[-1][-1])
        self.texts.append(block)
        self.length += len(block)
        self.count += len(own)

    def repeat(self, tokens: int) -> None:
        self.period = self.length
        blocks = [" " + self.texts[0].lstrip(), *self.texts[1:]]
        for start in itertools.cycle(range(0, len(blocks), BATCH_BLOCKS)):
            self.add(blocks[start : start + BATCH_BLOCKS], tokens)
            if self.enough(tokens):
                return

    def finish(self, name: str, unique: int | None, repeats: bool) -> Haystack:
        chars, counts = np.concatenate(self.chars), np.concatenate(self.tokens)
        ends = np.concatenate(self.sentence_ends)
        text = "".join(self.texts)
        period = self.period or (_period(text) if repeats else 0)
        return Haystack(text, chars, counts, ends, name, unique, repeats, period)


def _period(text: str) -> int:
    """The characters after which a text that repeats by nature starts again; 0 where that is not in it."""
    again = text.find(text[:CONTEXT_CHARS], 1)
    return max(again, 0)


def _blocks(parts: Iterable[str], name: str) -> Iterator[str]:
    """Blocks of about BLOCK_CHARS characters; each but the first begins with the space of a cut.

    Raises:
        DataError: a stretch of LONGEST_STRETCH characters has no place to cut: as one word it would be tokenised at once.
    """
    held = ""
    for part in parts:
        held += part
        while len(held) >= BLOCK_CHARS:
            cut = next((m.start() for m in CUT.finditer(held, BLOCK_CHARS // 2)), None)
            if cut is None and len(held) > LONGEST_STRETCH:
                raise DataError(
                    f"the haystack {name} has {len(held):,} characters in a row without two words: {shown(held[:40])}",
                    valid="text with words separated by spaces",
                )
            if cut is None:
                break
            yield held[:cut]
            held = held[cut:]
    if held:
        yield held


OFF_POINTS = 5.0  # a label that is further from the needle's real depth says something else than it seems to
PLACEABLE = 0.9  # share of a text in which a needle can stand near enough, at the least workable length


@overload
def is_off(label: float, real: float) -> bool: ...
@overload
def is_off(label: NDArray[np.float64], real: NDArray[np.float64]) -> NDArray[np.bool_]: ...
def is_off(label: Any, real: Any) -> Any:
    """Whether a depth's label lies more than OFF_POINTS from the real depth; never where one of them is NaN."""
    return abs(label - real) > OFF_POINTS


def least_haystack(cut_tokens: NDArray[np.int64]) -> int:
    """The least haystack, in tokens, in which any depth has a cut within OFF_POINTS; by the tokens up to each cut [C].

    The widest gaps are left aside, up to a tenth of the text: a table or a line of code does not rule a text out.
    """
    gaps = np.sort(np.diff(cut_tokens))
    if not len(gaps):
        return 1
    covered = np.cumsum(gaps)
    gap = int(gaps[np.searchsorted(covered, PLACEABLE * covered[-1])])
    return math.ceil(gap / 2 * 100 / OFF_POINTS)
