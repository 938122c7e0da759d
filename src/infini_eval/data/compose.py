"""Composes a prompt in token space: haystack slices around needles, exactly as many tokens as asked."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from infini_eval.api.task import Insert, Recipe, Span
from infini_eval.data.haystack import OFF_POINTS, Haystack
from infini_eval.data.plan import Allowed
from infini_eval.data.tokenizer import Tokenizer
from infini_eval.errors import DataError

Slices = list[tuple[int, int]]  # pairs of cuts
SPLICE_TOKENS = (64, 512, 4_096)  # how far before its end a gap is spliced where no cut fits the count
MOST_SKIPPED_CUTS = 4_000


def plan_slices(
    haystack: Haystack, start: int, edges: Sequence[int], at_end: int, tokens: int, variant: int = 0
) -> list[Slices] | None:
    """The slices of each gap, one gap more than `edges` + `at_end`; None where no cuts give the count.

    `edges`: the cut of each needle that stands inside the haystack, in order. `at_end` more needles follow the whole
    haystack. The gap after the last edge takes what is left of `tokens`; where it would end inside a word, a few words
    near its end are left out. `variant` picks another way of doing so (0 is the first one found).
    """
    gaps: list[Slices] = []
    cut = start
    for edge in edges:
        gaps.append([(cut, edge)] if edge > cut else [])
        cut = edge
    rest = tokens - haystack.slice_tokens(start, cut)
    last = _exactly(haystack, cut, rest, variant)
    if last is None:
        return None
    return [*gaps, last, *([[]] * at_end)]


def _exactly(haystack: Haystack, first: int, tokens: int, variant: int) -> Slices | None:
    """Slices from cut `first` on with exactly `tokens` tokens: the `variant`-th way that is found."""
    if tokens <= 0:
        return [] if tokens == 0 else None
    ways = itertools.chain.from_iterable(_spliced(haystack, first, tokens, distance) for distance in SPLICE_TOKENS)
    return next(itertools.islice(ways, variant, None), None)


def _spliced(haystack: Haystack, first: int, tokens: int, distance: int) -> Iterator[Slices]:
    """Every way to leave out some words `distance` tokens before the end, fewest words first."""
    origin = int(haystack.cut_tokens[first])
    splice = max(first, haystack.cut_at(origin + tokens - distance))
    rest = tokens - haystack.slice_tokens(first, splice)
    if rest <= 0:  # in text with few cuts the nearest one may be the end already, or lie behind it
        if rest == 0 and not haystack.after_sentence[splice]:
            yield [(first, splice)]
        return
    for resume in range(splice, min(splice + MOST_SKIPPED_CUTS, len(haystack.cut_tokens))):
        end = haystack.cut_exactly(int(haystack.cut_tokens[resume]) + rest)
        if end is not None:
            parts = [(first, splice), (resume, end)] if resume > splice else [(first, end)]
            yield [(a, b) for a, b in parts if b > a]


CONTEXT_CUTS = 16  # words on either side of a joint that are tokenised with it
ATTEMPTS = 40
EDGE_SHIFTS = 8


@dataclass(frozen=True)
class Composed:
    """A prompt with its measures: tokens (specials included), needle spans in characters and tokens, real depths.

    `haystack_chars` is what it takes of the pool, from its first character to its last one. `verified`: tokens, spans
    and depths were counted in the finished prompt; else they are those of the windows around its joints.
    """

    text: str
    tokens: int
    needle_chars: tuple[Span, ...]
    needle_tokens: tuple[Span, ...]
    depths: tuple[float, ...]
    haystack_tokens: int
    haystack_id: str
    haystack_chars: Span = (0, 0)
    verified: bool = True


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
    asked: int = 0,
    verify: bool = True,
) -> Composed:
    """Compose the prompt of exactly `target` tokens (specials included) whose haystack starts at cut `start`.

    `allowed` restricts where needle number `asked` may stand; the allowed cut nearest to its depth is taken. `verify`
    re-tokenises the finished prompt and takes every measure from it; without, the count is that of the windows around
    the joints, which a tokenizer that merges over spaces can belie.

    Raises:
        DataError: no such prompt can be made; it says how many tokens are the least.
    """
    return _Composer(recipe, haystack, start, target, tokenizer, allowed, asked).run(verify)


class _Composer:
    """One prompt in the making. Costs of the joints are measured in small windows until the count is exact."""

    def __init__(
        self,
        recipe: Recipe,
        haystack: Haystack,
        start: int,
        target: int,
        tokenizer: Tokenizer,
        allowed: Allowed | None,
        asked: int,
    ) -> None:
        self.recipe, self.haystack, self.start, self.target = recipe, haystack, start, target
        self.tokenizer, self.allowed, self.asked = tokenizer, allowed, asked
        self.specials = len(tokenizer.special_prefix) + len(tokenizer.special_suffix)
        self.inside = [insert for insert in recipe.inserts if insert.depth < 100]
        self.at_end = len(recipe.inserts) - len(self.inside)
        self.edges: list[int] = []  # the cuts of the needles inside the haystack
        self.core_ids: list[tuple[int, NDArray[np.int32]]] = []  # of each core, where its tokens begin, and they
        self.asked_needle = (
            0,
            0,
        )  # token span of the asked needle without haystack before it; known after one measurement

    def run(self, verify: bool) -> Composed:
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
            composed = self._measure(gaps, tokens)
            missing = self.target - composed.tokens - hidden
            if missing == 0 and verify:
                composed = self._verified(composed, gaps)
                missing = self.target - composed.tokens
                hidden -= missing
            if missing == 0 and (self.allowed is None or self._is_allowed(composed.needle_tokens[self.asked])):
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
            edges = [*edges[:-1], self._cut_before(edges[-1], tokens)]
        return None

    def _edges(self, tokens: int) -> list[int]:
        """The cuts nearest to the needles' depths in a haystack of `tokens` tokens."""
        edges: list[int] = []
        for insert in self.inside:
            edge = self._edge(insert, tokens)
            edges.append(max(edges[-1] if edges else self.start, edge))
        return self._allowed_edges(edges, tokens) if self.allowed is not None and self.asked < len(edges) else edges

    def _edge(self, insert: Insert, tokens: int) -> int:
        """The cut nearest to a needle's depth, of those that may hold it."""
        if insert.depth == 0:
            return self.start
        wanted = self._wanted(insert, tokens)
        edge = max(self.start, self.haystack.cut_at(wanted, self._cuts(insert)))
        if insert.after == "sentence or word" and self._is_off(insert, edge, tokens):
            edge = max(self.start, self.haystack.cut_at(wanted, self.haystack.words))
        return edge

    def _cuts(self, insert: Insert) -> NDArray[np.int64]:
        return self.haystack.words if insert.after == "word" else self.haystack.sentences

    def _wanted(self, insert: Insert, tokens: int) -> float:
        return int(self.haystack.cut_tokens[self.start]) + tokens * insert.depth / 100

    def _is_off(self, insert: Insert, edge: int, tokens: int) -> bool:
        off = abs(int(self.haystack.cut_tokens[edge]) - self._wanted(insert, tokens))
        return off > tokens * OFF_POINTS / 100

    def _cut_before(self, edge: int, tokens: int) -> int:
        insert = self.inside[-1]
        before = self._before(edge, self._cuts(insert))
        if insert.after == "sentence or word" and self._is_off(insert, before, tokens):
            before = self._before(edge, self.haystack.words)
        return before

    def _before(self, edge: int, cuts: NDArray[np.int64]) -> int:
        at = int(np.searchsorted(cuts, edge))
        return max(self.start, int(cuts[at - 1]) if at else self.start)

    def _allowed_edges(self, edges: list[int], tokens: int) -> list[int]:
        """The allowed cut nearest to the asked needle's depth in place of its edge; the others keep their order."""
        insert = self.inside[self.asked]
        edge = self._allowed_cut(self._cuts(insert), edges[self.asked], tokens)
        if insert.after == "sentence or word" and (edge is None or self._is_off(insert, edge, tokens)):
            by_word = self._allowed_cut(self.haystack.words, edges[self.asked], tokens)
            edge = edge if by_word is None else by_word
        if edge is None:
            if self.asked_needle == (0, 0):
                return edges
            raise DataError(
                f"the needle cannot stand where it was asked to in a prompt of {self.target} tokens",
                valid="a segment of the prompt that holds haystack text, and a border that the needle can reach",
            )
        ahead, behind = edges[: self.asked], edges[self.asked + 1 :]
        return [*(min(one, edge) for one in ahead), edge, *(max(one, edge) for one in behind)]

    def _allowed_cut(self, cuts: NDArray[np.int64], near: int, tokens: int) -> int | None:
        """The cut nearest to the cut `near`, of those where the asked needle may stand in a haystack of `tokens` tokens."""
        assert self.allowed is not None
        origin = int(self.haystack.cut_tokens[self.start])
        cuts = cuts[(cuts >= self.start) & (self.haystack.cut_tokens[cuts] <= origin + tokens)]
        before = self.haystack.cut_tokens[cuts] - origin
        good = np.flatnonzero(self.allowed(before + self.asked_needle[0], before + self.asked_needle[1]))
        if not len(good):
            return None
        nearest = good[np.argmin(np.abs(before[good] - (self.haystack.cut_tokens[near] - origin)))]
        return int(cuts[nearest])

    def _is_allowed(self, span: Span) -> bool:
        assert self.allowed is not None
        return bool(self.allowed(np.array([span[0]]), np.array([span[1]]))[0])

    def _measure(self, gaps: list[Slices], tokens: int) -> Composed:
        """The prompt of these slices, measured as the windows say."""
        count = len(self.tokenizer.special_prefix)
        texts: list[str] = []
        chars = 0
        depths: list[float] = []
        needle_chars: list[Span] = []
        needle_tokens: list[Span] = []
        haystack_before = 0
        cores, runs = _join_cores(self.recipe, gaps)
        self.core_ids = []
        for i, core in enumerate(cores):
            left, right = (runs[i - 1] if i else []), (runs[i] if i < len(runs) else [])
            ids, spans = self._joint(left, core, right)
            self.core_ids.append((count, ids))
            for (a, b), (token_a, token_b) in zip(core.needles, spans, strict=True):
                needle_chars.append((chars + a, chars + b))
                needle_tokens.append((count + token_a, count + token_b))
                depths.append(self._depth(len(depths), haystack_before, tokens))
            count += len(ids)
            texts.append(core.text)
            chars += len(core.text)
            for a, b in right:
                texts.append(self.haystack.slice(a, b))
                chars += len(texts[-1])
                count += self.haystack.slice_tokens(a, b)
                haystack_before += self.haystack.slice_tokens(a, b)
        before = sum(self.haystack.slice_tokens(a, b) for gap in gaps[: self.asked + 1] for a, b in gap)
        asked = needle_tokens[self.asked] if needle_tokens else (before, before)
        self.asked_needle = (asked[0] - before, asked[1] - before)
        count += len(self.tokenizer.special_suffix)
        text = "".join(texts)
        return Composed(
            text,
            count,
            tuple(needle_chars),
            tuple(needle_tokens),
            tuple(depths),
            tokens,
            self.haystack.identity(self.start),
            self._in_pool(gaps),
            verified=False,
        )

    def _depth(self, needle: int, before: int, tokens: int) -> float:
        """Percent of the haystack's tokens before a needle; without a haystack a needle stands at 0 as well as at 100."""
        if tokens:
            return 100 * before / tokens
        return 100.0 if self.recipe.inserts[needle].depth >= 50 else 0.0

    def _in_pool(self, gaps: list[Slices]) -> Span:
        """The characters of the pool from the first slice's start to the last one's end."""
        cuts = [cut for gap in gaps for slices in gap for cut in slices]
        chars = self.haystack.cut_chars
        return (int(chars[cuts[0]]), int(chars[cuts[-1]])) if cuts else (int(chars[self.start]),) * 2

    def _verified(self, composed: Composed, gaps: list[Slices]) -> Composed:
        """The same prompt with every measure as its own tokens have it."""
        ids = self.tokenizer.encode(composed.text)
        alike = (np.array_equal(ids[at : at + len(core)], core) for at, core in self.core_ids)
        if len(ids) == composed.tokens and all(alike):
            return replace(composed, verified=True)
        return self._remeasured(composed, gaps)

    def _remeasured(self, composed: Composed, gaps: list[Slices]) -> Composed:
        """The same prompt with tokens, spans and depths counted anew, where tokens reach over the joints."""
        places = _haystack_places(*_join_cores(self.recipe, gaps), self.haystack)
        tokens, needles, starts = self.tokenizer.measure(composed.text, composed.needle_chars, places)
        parts = [b - a for a, b in zip(starts[::2], starts[1::2], strict=True)]
        total = sum(parts)
        depths = []
        for i, (start, _) in enumerate(composed.needle_chars):
            before = sum(part for part, end in zip(parts, places[1::2], strict=True) if end <= start)
            depths.append(self._depth(i, before, total))
        return replace(
            composed, tokens=tokens, needle_tokens=needles, depths=tuple(depths), haystack_tokens=total, verified=True
        )

    def _joint(self, left: Slices, core: _Core, right: Slices) -> tuple[NDArray[np.int32], list[Span]]:
        """The tokens that a core adds between its neighbours, and its needles' token spans from the first of them on."""
        before = self._end_of(left)
        after, after_tokens = self._start_of(right)
        ids, offsets = self.tokenizer.encode_window(before + core.text + after)
        context = self.tokenizer.count(before, add_special_tokens=False) if before else 0
        spans = []
        for a, b in core.needles:
            a, b = a + len(before), b + len(before)
            inside = np.flatnonzero((offsets[:, 0] < b) & (offsets[:, 1] > a))
            spans.append((int(inside[0]) - context, int(inside[-1]) + 1 - context))
        return ids[context : len(ids) - after_tokens], spans

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


def _haystack_places(cores: list[_Core], runs: list[Slices], haystack: Haystack) -> list[int]:
    """Where each run of haystack text begins and ends in the prompt, in characters."""
    places: list[int] = []
    chars = 0
    for i, core in enumerate(cores):
        run = runs[i] if i < len(runs) else []
        chars += len(core.text)
        length = sum(int(haystack.cut_chars[b] - haystack.cut_chars[a]) for a, b in run)
        if run:
            places += [chars, chars + length]
        chars += length
    return places


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
