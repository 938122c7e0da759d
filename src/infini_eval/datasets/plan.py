"""Plans a data set before anything is composed: each row's length, depth, keys and haystack, from the seed alone."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from infini_eval.datasets.haystack import Haystack
from infini_eval.datasets.keys import KeyDrawer
from infini_eval.errors import ConfigError

HaystackPer = Literal["prompt", "depth", "trial", "run"]
POOL_TOKENS = 4 * 1024**2  # haystack text made at most for many prompts, if not told otherwise; then they share text
GAP_TOKENS = 128  # between one prompt's haystack and the next one's
SPARE_TOKENS = 8_192  # after the last one, for cuts that fit
LOOSE_TOKENS = 700  # --is_exact_context_length no: lengths are drawn from this many tokens below the nominal one
LOOSE_FROM = 2_000


@dataclass(frozen=True)
class GenerateConfig:
    """What to generate. Lengths in tokens, depths in percent (None: drawn for each prompt), `num_prompts` a cell.

    `question_phase`: None, "border" (the prompt ends a segment), "jitter", or the offset in its segment of the
    position that predicts the answer's first token. `answer_budget`: tokens kept free for the answer when
    `length_includes_answer`. `pool_tokens`: haystack text made at most, if one prompt does not need more.
    """

    context_lengths: tuple[int, ...]
    depths: tuple[float | None, ...]
    num_prompts: int
    num_shots: int = 0
    num_digits: tuple[int, ...] = (5,)
    seed: int = 42
    id: str = ""
    task: str = "passkey"
    options: Mapping[str, str] = field(default_factory=dict)
    control: Literal["no-context"] | None = None
    haystack: str = "english"
    haystack_per: HaystackPer = "prompt"
    allow_repeat: bool = False
    pool_tokens: int = POOL_TOKENS
    length_includes_answer: bool = False
    answer_budget: int = 16
    exact: bool = True
    is_eval: bool = True
    segment_length: int | None = None
    question_phase: str | None = None
    needle_segment: int | None = None
    boundary: Literal["straddle", "before", "after"] | None = None
    distinct_keys: Literal["call", "cell"] = "call"
    excluded_keys: Collection[str] = field(default=(), repr=False)


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


def plan_rows(config: GenerateConfig) -> list[RowPlan]:
    """All rows in the order of the file: by length, depth and trial."""
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


def _target(config: GenerateConfig, length: int, rng: random.Random) -> int:
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
    """The phase that `--question-phase` asks for: a number, "border" (the segment's last place) or "jitter"."""
    if text == "border":
        return segment_length - 1
    if text == "jitter":
        return rng.randrange(segment_length)
    if not text.isdecimal() or int(text) >= segment_length:
        raise ConfigError(
            f"--question-phase {text!r} is not a phase", valid=f"border, jitter, or 0..{segment_length - 1}"
        )
    return int(text)


def _segment_length(config: GenerateConfig, flag: str) -> int:
    if config.segment_length is None:
        raise ConfigError(f"{flag} needs the model's segment length", next_step="pass --segment-length L")
    return config.segment_length


def pool_tokens(rows: Sequence[RowPlan], most: int = POOL_TOKENS) -> int:
    """How much haystack text the rows need: each group its own, up to a pool of `most` tokens that they share."""
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
    """The lengths whose prompts have to share haystack text; repeated text is there once only."""
    pool = haystack.distinct_tokens
    if not haystack.repeats and _side_by_side(rows, pool):
        return []
    found = []
    for length, groups in _groups_by_length(rows).items():
        longest = max(row.target for row in rows if row.context_length == length)
        independent = 1 if haystack.repeats else haystacks_in(pool, longest)
        if len(groups) > independent:
            found.append(Shortage(length, len(groups), independent, pool, tokens_for(len(groups), longest)))
    return found


def _side_by_side(rows: Sequence[RowPlan], pool: int) -> bool:
    """Whether every group gets text of its own, whatever its length."""
    return tokens_for(max(row.group for row in rows) + 1, max(row.target for row in rows)) <= pool


def _groups_by_length(rows: Sequence[RowPlan]) -> dict[int, list[int]]:
    """The groups by the context length of their longest row, both in order."""
    longest: dict[int, int] = {}
    for row in rows:
        longest[row.group] = max(row.context_length, longest.get(row.group, 0))
    found: dict[int, list[int]] = {}
    for group, length in longest.items():
        found.setdefault(length, []).append(group)
    return found


def needed_tokens(rows: Sequence[RowPlan]) -> int:
    """The least haystack text that the longest prompt can be cut from."""
    return max(row.target for row in rows)


def assign(config: GenerateConfig, rows: Sequence[RowPlan], haystack: Haystack) -> list[KeyedRow]:
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


def _starts(config: GenerateConfig, rows: Sequence[RowPlan], haystack: Haystack, longest: int) -> list[int]:
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
        own = max(row.target for row in rows if row.context_length == length) + GAP_TOKENS
        places = haystacks_in(haystack.tokens, own - GAP_TOKENS)
        stride = _usable(haystack.tokens) // places
        for turn, group in enumerate(members):
            start = turn % places * stride + rng.randrange(max(1, stride - own))
            starts[group] = _start_near(haystack, origin + start)
    return starts


def _start_near(haystack: Haystack, token: int) -> int:
    """The end of a sentence there; in text whose sentences end rarely (lists, code) that of a word."""
    cut = haystack.cut_at(token, haystack.sentences)
    far = abs(int(haystack.cut_tokens[cut]) - token) > GAP_TOKENS
    return haystack.cut_at(token, haystack.words) if far else cut
