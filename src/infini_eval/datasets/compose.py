"""Composes a prompt in token space: haystack slices around needles, exactly as many tokens as asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from infini_eval.datasets.haystack import Haystack
from infini_eval.datasets.slices import Slices, plan_slices
from infini_eval.datasets.tokenizer import Tokenizer
from infini_eval.errors import DataError

CONTEXT_CUTS = 16  # words on either side of a joint that are tokenised with it
VERIFY_TOKENS = 262_144  # prompts up to this length are re-tokenised whole
ATTEMPTS = 40
EDGE_SHIFTS = 8

Span = tuple[int, int]
# Which needle positions are allowed: (start [C], end [C]) int64 token spans in the prompt -> bool [C].
Allowed = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.bool_]]


@dataclass(frozen=True)
class Insert:
    """A text put into the haystack at a depth: the share, in percent, of the haystack's tokens before it.

    `text` begins where the word or sentence before it ends, and ends without the space that follows. `needle` is the
    half-open character span in `text` that counts as the needle. `after` says where the haystack is cut for it.
    """

    text: str
    depth: float
    needle: Span
    after: Literal["word", "sentence"] = "word"


@dataclass(frozen=True)
class Recipe:
    """A prompt around its haystack: `prefix` (no space at its end), inserts in order of depth, `suffix`."""

    prefix: str
    inserts: tuple[Insert, ...]
    suffix: str


@dataclass(frozen=True)
class Composed:
    """A prompt with its measures: tokens (specials included), needle spans in characters and tokens, real depths.

    `haystack_place` is where its haystack stands in the pool (see Haystack.place).
    """

    text: str
    tokens: int
    needle_chars: tuple[Span, ...]
    needle_tokens: tuple[Span, ...]
    depths: tuple[float, ...]
    haystack_tokens: int
    haystack_id: str
    haystack_place: Span = (0, 0)


@dataclass(frozen=True)
class _Core:
    """A stretch of the prompt that is not haystack, between slices: prefix, needles, suffix, joined by a space."""

    text: str
    needles: tuple[Span, ...]


def compose(
    recipe: Recipe,
    haystack: Haystack,
    start: int,
    target: int,
    tokenizer: Tokenizer,
    *,
    allowed: Allowed | None = None,
    verify: bool | None = None,
) -> Composed:
    """The prompt of exactly `target` tokens (specials included) whose haystack starts at cut `start`.

    `allowed` restricts where the first needle may stand; the allowed cut nearest to its depth is taken. `verify`
    re-tokenises the finished prompt (None: up to VERIFY_TOKENS tokens). DataError when the prompt cannot be made.
    """
    return _Composer(recipe, haystack, start, target, tokenizer, allowed).run(verify)


class _Composer:
    """One prompt in the making. Costs of the joints are measured in small windows until the count is exact."""

    def __init__(
        self, recipe: Recipe, haystack: Haystack, start: int, target: int, tokenizer: Tokenizer, allowed: Allowed | None
    ) -> None:
        self.recipe, self.haystack, self.start, self.target = recipe, haystack, start, target
        self.tokenizer, self.allowed = tokenizer, allowed
        self.specials = len(tokenizer.special_prefix) + len(tokenizer.special_suffix)
        self.inside = [insert for insert in recipe.inserts if insert.depth < 100]
        self.at_end = len(recipe.inserts) - len(self.inside)
        self.edges: list[int] = []  # the cuts of the needles inside the haystack
        self.first_needle = (0, 0)  # token span of the first needle were it at depth 0; known after one measurement

    def run(self, verify: bool | None) -> Composed:
        verify = self.target <= VERIFY_TOKENS if verify is None else verify
        bare = self._bare_tokens()
        tokens, hidden = self.target - bare, 0  # hidden: tokens that windows do not see, found by verifying
        if tokens < 0:
            raise DataError(
                f"{self.target} tokens are too few: intro, needle and question alone take {bare}",
                next_step=f"ask for a context of at least {bare} tokens",
            )
        for attempt in range(ATTEMPTS):
            gaps = self._gaps(tokens, variant=max(0, attempt - ATTEMPTS // 4))
            if gaps is None:
                tokens -= 1
                continue
            composed, total = self._measure(gaps, tokens)
            missing = self.target - total - hidden
            if missing == 0 and verify:
                missing = self.target - self.tokenizer.count(composed.text)
                hidden -= missing
            if missing == 0 and (self.allowed is None or self._is_allowed(composed.needle_tokens[0])):
                return composed
            tokens += missing
            if tokens < 0:
                break
        raise DataError(
            f"no prompt of exactly {self.target} tokens can be composed from the haystack {self.haystack.name} with "
            f"the tokenizer {self.tokenizer.name}",
            next_step=f"ask for more tokens (intro, needle and question alone take {bare}), or another haystack",
        )

    def _bare_tokens(self) -> int:
        text = " ".join([self.recipe.prefix, *(insert.text for insert in self.recipe.inserts), self.recipe.suffix])
        return self.tokenizer.count(text)

    def _gaps(self, tokens: int, variant: int) -> list[Slices] | None:
        if not variant or not self.edges:  # later they stay, lest one more token move an edge, and that move the count
            self.edges = self._edges(tokens)
        edges = self.edges
        for _ in range(EDGE_SHIFTS):  # a needle just before the question may leave too little to be cut exactly
            gaps = plan_slices(self.haystack, self.start, edges, self.at_end, tokens, variant)
            if gaps is not None or not edges or edges[-1] <= max([self.start, *edges[:-1]]):
                return gaps
            edges = [*edges[:-1], self._cut_before(edges[-1])]
        return None

    def _edges(self, tokens: int) -> list[int]:
        """The cuts nearest to the needles' depths in a haystack of `tokens` tokens."""
        origin = int(self.haystack.cut_tokens[self.start])
        edges: list[int] = []
        for insert in self.inside:
            edge = self.haystack.cut_at(origin + tokens * insert.depth / 100, self._cuts(insert))
            edges.append(self.start if insert.depth == 0 else max(self.start, edge))
        return self._allowed_edges(edges, tokens) if self.allowed is not None and edges else edges

    def _cuts(self, insert: Insert) -> NDArray[np.int64]:
        return self.haystack.sentences if insert.after == "sentence" else self.haystack.words

    def _cut_before(self, edge: int) -> int:
        cuts = self._cuts(self.inside[-1])
        at = int(np.searchsorted(cuts, edge))
        return max(self.start, int(cuts[at - 1]) if at else self.start)

    def _allowed_edges(self, edges: list[int], tokens: int) -> list[int]:
        """The allowed cut nearest to the first needle's depth in place of its edge."""
        assert self.allowed is not None
        origin = int(self.haystack.cut_tokens[self.start])
        cuts = self._cuts(self.inside[0])
        cuts = cuts[(cuts >= self.start) & (self.haystack.cut_tokens[cuts] <= origin + tokens)]
        before = self.haystack.cut_tokens[cuts] - origin
        good = np.flatnonzero(self.allowed(before + self.first_needle[0], before + self.first_needle[1]))
        if not len(good):
            if self.first_needle == (0, 0):
                return edges
            raise DataError(
                f"the needle cannot stand where it was asked to in a prompt of {self.target} tokens",
                valid="a segment of the prompt that holds haystack text, and a border that the needle can reach",
            )
        nearest = good[np.argmin(np.abs(before[good] - (self.haystack.cut_tokens[edges[0]] - origin)))]
        return [int(cuts[nearest]), *edges[1:]]

    def _is_allowed(self, span: Span) -> bool:
        assert self.allowed is not None
        return bool(self.allowed(np.array([span[0]]), np.array([span[1]]))[0])

    def _measure(self, gaps: list[Slices], tokens: int) -> tuple[Composed, int]:
        """The prompt of these slices and its number of tokens as the windows say."""
        count = len(self.tokenizer.special_prefix)
        texts: list[str] = []
        chars, depths = 0, []
        needle_chars: list[Span] = []
        needle_tokens: list[Span] = []
        haystack_before = 0
        cores, runs = _join_cores(self.recipe, gaps)
        for i, core in enumerate(cores):
            left, right = (runs[i - 1] if i else []), (runs[i] if i < len(runs) else [])
            cost, spans = self._joint(left, core, right)
            for (a, b), (token_a, token_b) in zip(core.needles, spans, strict=True):
                needle_chars.append((chars + a, chars + b))
                needle_tokens.append((count + token_a, count + token_b))
                depths.append(100 * haystack_before / tokens if tokens else 100.0)
            count += cost
            texts.append(core.text)
            chars += len(core.text)
            for a, b in right:
                texts.append(self.haystack.slice(a, b))
                chars += len(texts[-1])
                count += self.haystack.slice_tokens(a, b)
                haystack_before += self.haystack.slice_tokens(a, b)
        before = sum(self.haystack.slice_tokens(a, b) for a, b in gaps[0])
        self.first_needle = (needle_tokens[0][0] - before, needle_tokens[0][1] - before) if needle_tokens else (0, 0)
        count += len(self.tokenizer.special_suffix)
        text = "".join(texts)
        identity = self.haystack.identity(self.start)
        place = self.haystack.place(self.start, max((b for gap in gaps for _, b in gap), default=self.start))
        char_spans, token_spans = tuple(needle_chars), tuple(needle_tokens)
        return Composed(text, count, char_spans, token_spans, tuple(depths), tokens, identity, place), count

    def _joint(self, left: Slices, core: _Core, right: Slices) -> tuple[int, list[Span]]:
        """Tokens that a core adds between its neighbours, and its needles' token spans from its first token on."""
        before = self._end_of(left)
        after, after_tokens = self._start_of(right)
        _, offsets = self.tokenizer.encode_window(before + core.text + after)
        context = self.tokenizer.count(before, add_special_tokens=False) if before else 0
        spans = []
        for a, b in core.needles:
            a, b = a + len(before), b + len(before)
            inside = np.flatnonzero((offsets[:, 0] < b) & (offsets[:, 1] > a))
            spans.append((int(inside[0]) - context, int(inside[-1]) + 1 - context))
        return len(offsets) - context - after_tokens, spans

    def _end_of(self, slices: Slices) -> str:
        if not slices:
            return ""
        first, last = slices[-1]
        return self.haystack.slice(max(first, last - CONTEXT_CUTS), last)

    def _start_of(self, slices: Slices) -> tuple[str, int]:
        if not slices:
            return "", 0
        first, last = slices[0]
        last = min(last, first + CONTEXT_CUTS)
        return self.haystack.slice(first, last), self.haystack.slice_tokens(first, last)


def _join_cores(recipe: Recipe, gaps: list[Slices]) -> tuple[list[_Core], list[Slices]]:
    """Cores and the nonempty gaps between them; what an empty gap parts is joined by one space."""
    pieces: list[tuple[str, Span | None]] = [
        (recipe.prefix, None),
        *((insert.text, insert.needle) for insert in recipe.inserts),
        (recipe.suffix, None),
    ]
    cores = [_Core(pieces[0][0], ())]
    runs: list[Slices] = []
    for gap, (text, needle) in zip(gaps, pieces[1:], strict=True):
        if gap:
            runs.append(gap)
            cores.append(_Core(text, (needle,) if needle else ()))
        else:
            base = len(cores[-1].text) + 1
            moved = ((needle[0] + base, needle[1] + base),) if needle else ()
            cores[-1] = _Core(f"{cores[-1].text} {text}", cores[-1].needles + moved)
    return cores, runs
