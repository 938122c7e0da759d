"""Plans a data set before anything is composed: each row's length, depth, keys, haystack and place, from the seed alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infini_eval.data.config import POOL_TOKENS, HaystackPer, ResolvedConfig
from infini_eval.data.haystack import Haystack
from infini_eval.errors import ConfigError, DataError

GAP_TOKENS = 128  # between one prompt's haystack and the next one's
SPARE_TOKENS = 8_192  # after the last one, for cuts that fit
LOOSE_TOKENS = 700  # --is_exact_context_length no: lengths are drawn from this many tokens below the nominal one
LOOSE_FROM = 2_000


# Which needle positions are allowed: (start [C], end [C]) int64 token spans in the prompt -> bool [C].
Allowed = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.bool_]]


@dataclass(frozen=True)
class RowPlan:
    """One row to be: `target` is the prompt's exact length in tokens, `group` names its haystack.

    `cell` is the depth asked for, -1 where it is drawn.
    """

    context_length: int
    cell: float
    depth: float
    trial: int
    num_digits: int
    target: int
    group: int


@dataclass(frozen=True)
class KeyedRow:
    """A row with its haystack's first cut and its keys."""

    plan: RowPlan
    start: int
    key: str
    shot_keys: tuple[str, ...]


def plan_rows(config: ResolvedConfig) -> list[RowPlan]:
    """Plan all rows in the order of the file: by length, depth and trial."""
    rows: list[RowPlan] = []
    groups: dict[tuple[float, ...], int] = {}
    for length in config.context_lengths:
        for depth in config.depths:
            for trial in range(config.num_prompts):
                cell = -1.0 if depth is None else depth
                group = groups.setdefault(_group(config.haystack_per, length, cell, trial), len(groups))
                digits = config.num_digits[trial % len(config.num_digits)]
                rng = random.Random(f"length/{config.seed}/{config.id}/{length}/{cell:g}/{trial}")
                target = _target(config, length, rng)
                actual = round(rng.uniform(0, 100), 2) if depth is None else depth
                rows.append(RowPlan(length, cell, actual, trial, digits, target, group))
    return rows


def _group(per: HaystackPer, length: int, depth: float, trial: int) -> tuple[float, ...]:
    return {"prompt": (length, depth, trial), "depth": (depth,), "trial": (trial,), "run": ()}[per]


def _target(config: ResolvedConfig, length: int, rng: random.Random) -> int:
    """The prompt's length: the nominal one, less the answer's budget, moved down to the asked phase."""
    target = length - (config.answer_budget if config.length_includes_answer else 0)
    if not config.exact and length >= LOOSE_FROM:
        target -= rng.randrange(LOOSE_TOKENS + 1)
    if config.question_phase is not None:
        segment = _segment_length(config, "--question-phase")
        phase = question_phase(config.question_phase, segment, rng)
        target -= (target - 1 - phase) % segment
    if target < 1:
        raise ConfigError(
            f"--context_length {length} leaves no room for the prompt", valid="a length above the answer's budget"
        )
    return target


def question_phase(text: str, segment_length: int, rng: random.Random) -> int:
    """Return the phase that `--question-phase` asks for: a number, "border" (the segment's last place) or "jitter"."""
    if text == "border":
        return segment_length - 1
    if text == "jitter":
        return rng.randrange(segment_length)
    if not text.isdecimal() or int(text) >= segment_length:
        raise ConfigError(
            f"--question-phase {text!r} is not a phase", valid=f"border, jitter, or 0..{segment_length - 1}"
        )
    return int(text)


def _segment_length(config: ResolvedConfig, flag: str) -> int:
    if config.segment_length is None:
        raise ConfigError(f"{flag} needs the model's segment length", next_step="pass --segment-length L")
    return config.segment_length


def pool_tokens(rows: Sequence[RowPlan], most: int = POOL_TOKENS) -> int:
    """Count the haystack tokens that the rows need: each group its own, up to a pool of `most` tokens that they share."""
    longest = max(row.target for row in rows)
    groups = max(row.group for row in rows) + 1
    return min(tokens_for(groups, longest), max(most, longest + longest // 4 + SPARE_TOKENS))


def tokens_for(haystacks: int, length: int) -> int:
    """The pool from which that many haystacks of `length` tokens can be cut that do not overlap."""
    return haystacks * (length + GAP_TOKENS) + SPARE_TOKENS


def haystacks_in(pool: int, length: int) -> int:
    """How many haystacks of `length` tokens a pool of `pool` tokens holds side by side; at least 1."""
    return max(1, _usable(pool) // (length + GAP_TOKENS))


def _usable(pool: int) -> int:
    return pool - min(SPARE_TOKENS, pool // 8)


@dataclass(frozen=True)
class Shortage:
    """Too little text for the prompts of one length: of `asked` haystacks only `independent` do not overlap.

    `pool` is the number of tokens there are, `needed` how many would do.
    """

    context_length: int
    asked: int
    independent: int
    pool: int
    needed: int


def shortages(rows: Sequence[RowPlan], haystack: Haystack) -> list[Shortage]:
    """Find the lengths whose prompts have to share haystack text; repeated text is there once only."""
    pool = haystack.distinct_tokens
    if not haystack.repeats and _side_by_side(rows, pool):
        return []
    short = []
    for length, groups in _groups_by_length(rows).items():
        longest = max(row.target for row in rows if row.context_length == length)
        independent = 1 if haystack.repeats else haystacks_in(pool, longest)
        if len(groups) > independent:
            short.append(Shortage(length, len(groups), independent, pool, tokens_for(len(groups), longest)))
    return short


def _side_by_side(rows: Sequence[RowPlan], pool: int) -> bool:
    """Whether every group gets text of its own, whatever its length."""
    return tokens_for(max(row.group for row in rows) + 1, max(row.target for row in rows)) <= pool


def _groups_by_length(rows: Sequence[RowPlan]) -> dict[int, list[int]]:
    """The groups by the context length of their longest row, both in order."""
    longest: dict[int, int] = {}
    for row in rows:
        longest[row.group] = max(row.context_length, longest.get(row.group, 0))
    by_length: dict[int, list[int]] = {}
    for group, length in longest.items():
        by_length.setdefault(length, []).append(group)
    return by_length


def needed_tokens(rows: Sequence[RowPlan]) -> int:
    """The least haystack text that the longest prompt can be cut from."""
    return max(row.target for row in rows)


def assign(config: ResolvedConfig, rows: Sequence[RowPlan], haystack: Haystack) -> list[KeyedRow]:
    """Each row's place in the haystack and its keys; a key never stands elsewhere in its prompt."""
    longest = max(row.target for row in rows)
    starts = _starts(config, rows, haystack, longest)
    drawer = KeyDrawer(f"keys/{config.seed}/{config.id}", config.excluded_keys)
    keyed: list[KeyedRow] = []
    cell: tuple[int, float] | None = None
    shots: set[str] = set()
    for row in rows:
        if config.distinct_keys == "cell" and cell != (row.context_length, row.cell):
            cell, drawer.used = (row.context_length, row.cell), set(shots)
        start = starts[row.group]
        inside = numbers_near(haystack, start, row.target)
        key = drawer.draw(row.num_digits, inside)
        shot_keys = tuple(drawer.draw(row.num_digits, inside) for _ in range(config.num_shots))
        shots.update(shot_keys)
        keyed.append(KeyedRow(row, start, key, shot_keys))
    return keyed


def numbers_near(haystack: Haystack, start: int, target: int) -> set[str]:
    """The numbers that a prompt of `target` tokens starting at a cut may hold."""
    end = haystack.cut_at(haystack.cut_tokens[start] + target + SPARE_TOKENS)
    return haystack.numbers_between(start, end)


def _starts(config: ResolvedConfig, rows: Sequence[RowPlan], haystack: Haystack, longest: int) -> list[int]:
    """The first cut of each group: one after the other where the pool suffices, else shared as evenly as can be.

    Then the groups of a length take turns in places that do not overlap. Training data are drawn from anywhere.
    """
    groups = max(row.group for row in rows) + 1
    stride, origin = longest + GAP_TOKENS, int(haystack.cut_tokens[0])
    if _side_by_side(rows, haystack.tokens):
        return [_start_near(haystack, origin + group * stride) for group in range(groups)]
    rng = random.Random(f"starts/{config.seed}/{config.id}")
    if not config.is_eval:
        left = haystack.tokens - longest
        room = max(1, left - min(SPARE_TOKENS, left // 2))
        return [haystack.cut_at(origin + rng.randrange(room), haystack.sentences) for _ in range(groups)]
    starts = [0] * groups
    for length, members in _groups_by_length(rows).items():
        room_each = max(row.target for row in rows if row.context_length == length) + GAP_TOKENS
        places = haystacks_in(haystack.tokens, room_each - GAP_TOKENS)
        stride = _usable(haystack.tokens) // places
        for turn, group in enumerate(members):
            start = turn % places * stride + rng.randrange(max(1, stride - room_each))
            starts[group] = _start_near(haystack, origin + start)
    return starts


def _start_near(haystack: Haystack, token: int) -> int:
    """The end of a sentence there; in text whose sentences end rarely (lists, code) that of a word."""
    cut = haystack.cut_at(token, haystack.sentences)
    far = abs(int(haystack.cut_tokens[cut]) - token) > GAP_TOKENS
    return haystack.cut_at(token, haystack.words) if far else cut


TRIES = 10_000


def key_range(num_digits: int) -> range:
    """All keys of that many digits, without a leading zero (1 digit: 1..9)."""
    if not 1 <= num_digits <= 18:
        raise DataError(
            f"--num_digits {num_digits} is outside 1..18", valid="1..18 digits: answers are stored as int64"
        )
    return range(10 ** (num_digits - 1), 10**num_digits)


class KeyDrawer:
    """Hands out keys of one seed, each at most once, shots' keys apart from needles' keys."""

    def __init__(self, seed: str, excluded: Collection[str] = ()) -> None:
        self.rng = random.Random(seed)
        self.excluded = frozenset(excluded)
        self.used: set[str] = set()

    def draw(self, num_digits: int, forbidden: Collection[str] = ()) -> str:
        """Draw a key of `num_digits` digits that was not drawn before and is not in `forbidden`."""
        keys = key_range(num_digits)
        taken = self.used | self.excluded | set(forbidden) if len(keys) <= TRIES else None
        if taken is not None:
            free = [key for key in map(str, keys) if key not in taken]
            if free:
                return self._take(free[self.rng.randrange(len(free))])
        else:
            for _ in range(TRIES):
                key = str(keys[self.rng.randrange(len(keys))])
                if not (key in self.used or key in self.excluded or key in forbidden):
                    return self._take(key)
        raise DataError(
            f"no key of {num_digits} digit(s) is left: {len(self.used)} are in use, {len(self.excluded)} excluded, "
            f"{len(forbidden)} stand in the haystack; there are {len(keys)} in all",
            valid="fewer prompts in one call, or more digits",
            next_step=f"pass --num_digits {num_digits + 1}; --distinct-keys cell (keys differ within a cell); or "
            "--haystack_dir filler (a text without numbers)",
        )

    def _take(self, key: str) -> str:
        self.used.add(key)
        return key


BORDER_SLACK = 8  # "before" and "after" a border: at most this many tokens of haystack between border and needle
DEEPEST = 99.0  # a needle that is moved to a place starts from a depth inside the haystack

Tokens = NDArray[np.int64]


def start_depth(config: ResolvedConfig, depth: float, target: int) -> float:
    """Return the depth to look from: the middle of the asked segment, or the asked depth."""
    if config.needle_segment is not None and config.segment_length:
        middle = (config.needle_segment + 0.5) * config.segment_length
        return min(DEEPEST, 100 * middle / target)
    return min(depth, DEEPEST) if config.boundary else depth


def needle_constraint(config: ResolvedConfig) -> Allowed | None:
    """Return the test of a needle's token span, from `needle_segment` and `boundary`; None where any place will do.

    With a segment and "straddle", the needle ends in that segment and begins in the one before.
    """
    if config.needle_segment is None and config.boundary is None:
        return None
    length, segment = config.segment_length, config.needle_segment
    if length is None:
        raise ConfigError(
            "--needle-segment and --boundary need the model's segment length", next_step="pass --segment-length L"
        )

    def allowed(start: Tokens, end: Tokens) -> NDArray[np.bool_]:
        first, last = start // length, (end - 1) // length
        good: NDArray[np.bool_] = (first != last) if config.boundary == "straddle" else (first == last)
        if config.boundary == "before":
            good = good & (-end % length < BORDER_SLACK)
        if config.boundary == "after":
            good = good & (start % length < BORDER_SLACK)
        return good if segment is None else good & (last == segment)

    return allowed
