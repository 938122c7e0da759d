"""Generates a data set: plan, haystack, then each row composed on its own, so that workers never change the result."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from infini_eval.datasets.compose import Allowed, Composed, Recipe, compose
from infini_eval.datasets.haystack import Haystack, build_haystack
from infini_eval.datasets.plan import GenerateConfig, KeyedRow, assign, plan_rows, pool_tokens
from infini_eval.datasets.sources import Source
from infini_eval.datasets.tokenizer import Tokenizer
from infini_eval.errors import ConfigError, DataError

# (depth in percent, key, shots' keys, rng) -> what surrounds the haystack
MakeRecipe = Callable[[float, str, tuple[str, ...], random.Random], Recipe]


def generate(
    config: GenerateConfig,
    tokenizer: Tokenizer,
    make_recipe: MakeRecipe,
    *,
    forbidden_text: str | None = None,
    workers: int = 1,
    verify: bool | None = None,
) -> tuple[Iterator[dict[str, Any]], Haystack]:
    """The rows of the data set, in order and as they are made, and the haystack that they were cut from.

    `forbidden_text` (the needle's opening) must not stand in the haystack. Rows do not depend on `workers`.
    """
    plans = plan_rows(config)
    source = Source(config.haystack, config.seed)
    haystack = build_haystack(
        source.parts(), tokenizer, pool_tokens(plans),
        name=source.name, allow_repeat=config.allow_repeat, repeats=source.repeats,
    )  # fmt: skip
    if forbidden_text and forbidden_text.casefold() in haystack.text.casefold():
        raise DataError(f"the haystack {source.name} already holds the needle's words {forbidden_text!r}")
    keyed = assign(config, plans, haystack)
    return _rows(lambda row: _row(config, tokenizer, make_recipe, haystack, row, verify), keyed, workers), haystack


def _rows(
    make: Callable[[KeyedRow], dict[str, Any]], rows: list[KeyedRow], workers: int
) -> Iterator[dict[str, Any]]:
    """Rows in order; at most two a worker are held at a time. Threads do: the tokenizer works outside Python's lock."""
    if workers <= 1:
        yield from map(make, rows)
        return
    with ThreadPoolExecutor(workers) as pool:
        for batch in _batches(rows, 2 * workers):
            yield from pool.map(make, batch)


def _batches(rows: list[KeyedRow], size: int) -> Iterator[list[KeyedRow]]:
    iterator = iter(rows)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def _row(
    config: GenerateConfig,
    tokenizer: Tokenizer,
    make_recipe: MakeRecipe,
    haystack: Haystack,
    keyed: KeyedRow,
    verify: bool | None,
) -> dict[str, Any]:
    plan = keyed.plan
    name = f"{config.id or config.seed}-{plan.context_length}-{plan.depth:g}-{plan.trial}"
    rng = random.Random(f"recipe/{config.seed}/{name}")
    recipe = make_recipe(_depth(config, plan.depth, plan.target), keyed.key, keyed.shot_keys, rng)
    composed = compose(recipe, haystack, keyed.start, plan.target, tokenizer, allowed=_allowed(config), verify=verify)
    if not config.is_eval:
        composed = _with_answer(composed, keyed.key)
    return _columns(config, tokenizer, haystack, keyed, composed, name)


def _columns(
    config: GenerateConfig, tokenizer: Tokenizer, haystack: Haystack, keyed: KeyedRow, composed: Composed, name: str
) -> dict[str, Any]:
    plan = keyed.plan
    start, end = composed.needle_tokens[-1]
    return {
        "id": name,
        "prompt": composed.text,
        "answer": int(keyed.key),
        "context_length": plan.context_length,
        "token_count": composed.tokens,
        "num_shots": config.num_shots,
        "num_digits": plan.num_digits,
        "depth_percent": plan.depth,
        "real_depth": round(composed.depths[-1], 4),
        "needle_token_start": start,
        "needle_token_end": end,
        "length_includes_answer": "yes" if config.length_includes_answer else "no",
        "is_eval": "yes" if config.is_eval else "no",
        "haystack": haystack.name,
        "haystack_hash": composed.haystack_id,
        "haystack_unique": round(haystack.unique_fraction, 6),
        "tokenizer_hash": tokenizer.fingerprint,
    }


def _with_answer(composed: Composed, key: str) -> Composed:
    """Training data: the question is followed by the answer. The length stays that of the prompt."""
    return Composed(**{**vars(composed), "text": composed.text + key})


def _depth(config: GenerateConfig, depth: float, target: int) -> float:
    """The depth to start looking from; a needle that must follow a segment never stands behind all of the haystack."""
    if config.needle_segment is not None and config.segment_length:
        middle = (config.needle_segment + 0.5) * config.segment_length
        return min(99.0, 100 * middle / target)
    return min(depth, 99.0) if config.boundary else depth


def _allowed(config: GenerateConfig) -> Allowed | None:
    """Where the needle may stand: in one segment, or at a segment border."""
    if config.needle_segment is None and config.boundary is None:
        return None
    length = config.segment_length
    if length is None:
        raise ConfigError("--needle-segment and --boundary need the model's segment length", next_step="pass --segment-length L")

    def inside_or_at_border(start: np.ndarray, end: np.ndarray) -> np.ndarray:
        good = np.ones(len(start), dtype=bool)
        if config.needle_segment is not None:
            segment = config.needle_segment
            good &= (end - 1) // length == segment if config.boundary == "straddle" else good
            if config.boundary != "straddle":
                good &= (start // length == segment) & ((end - 1) // length == segment)
        if config.boundary == "straddle":
            good &= start // length != (end - 1) // length
        elif config.boundary == "before":
            good &= (start // length == (end - 1) // length) & (-end % length < BORDER_SLACK)
        elif config.boundary == "after":
            good &= (start // length == (end - 1) // length) & (start % length < BORDER_SLACK)
        return good

    return inside_or_at_border


BORDER_SLACK = 8  # "before" and "after" a border: at most this many tokens of haystack between border and needle
