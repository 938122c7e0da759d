"""What a data set is asked to hold: its settings, which are also flags, and what they mean for one task."""

from __future__ import annotations

import argparse
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from infini_eval.api.task import Generator
from infini_eval.errors import ConfigError
from infini_eval.options import (
    character_count,
    count,
    depth_list,
    option,
    options_of,
    positive_int,
    sections_of,
    spelling,
    token_count,
)

POOL_TOKENS = 4 * 1024**2  # haystack text made at most for many prompts, if not told otherwise; then they share text
HaystackPer = Literal["prompt", "depth", "trial", "run"]
YES_NO = {"yes": True, "no": False}
SHOWN = " (default: %(default)s)"
SOURCES = "english, filler, python-docs, a folder or file of .txt .md .jsonl .parquet, or hub:owner/name"


def evenly_spaced(number: int, kind: Literal["linear", "sigmoid"] | str) -> tuple[float, ...]:
    """Return `number` depths from 0 to 100 percent, both included; "sigmoid" lies denser at both ends (slope 0.1)."""
    even = [100 * i / (number - 1) for i in range(number)]
    if kind == "linear":
        return tuple(round(depth, 3) for depth in even)
    curved = [100 / (1 + math.exp(-0.1 * (depth - 50))) for depth in even]
    return (0.0, *(round(depth, 3) for depth in curved[1:-1]), 100.0)


def depth_schedule(text: str) -> tuple[float | None, ...]:
    """Read a list as `options.depth_list` does; "linear:K" or "sigmoid:K" for K depths from 0 to 100; "random" (None)."""
    kind, _, number = text.partition(":")
    if kind == "random":
        return (None,)
    if kind not in ("linear", "sigmoid"):
        return depth_list(text)
    if not number.isdecimal() or int(number) < 2:
        raise argparse.ArgumentTypeError(f"{text!r} is not a depth schedule (valid: linear:11, sigmoid:11)")
    return evenly_spaced(int(number), kind)


def digit_counts(text: str) -> tuple[int, ...]:
    """Read "5" or "4,5" as numbers of digits, each 1..18."""
    parts = text.split(",")
    if not all(part.isdecimal() and 1 <= int(part) <= 18 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of digits (valid: 1..18, or a list as 4,5)")
    return tuple(int(part) for part in parts)


@dataclass(frozen=True)
class GenerateConfig:
    """What to generate, whatever the tokenizer; None is the task's own way.

    Lengths are in tokens, or in characters (`char_counts`) that as much haystack text turns into tokens. Depths are in
    percent of the haystack's tokens, None for one drawn for each prompt. `num_prompts` is for each length and depth.
    `question_phase`: None, "border" (the prompt ends a segment), "jitter", or the offset in its segment of the position
    that predicts the answer's first token. `answer_budget`: tokens kept free for the answer when
    `length_includes_answer`. `pool_tokens`: haystack text made at most, if one prompt does not need more.
    `excluded_keys` and the answers of the data set `exclude_keys_from` are not drawn.
    """

    context_lengths: tuple[int, ...] = option(
        (),
        "tokens: 4096, 128k, 1m; several",
        flag="--context_length",
        read=token_count,
        several=True,
        metavar="N",
        section="length and place",
    )
    depths: tuple[float | None, ...] | None = option(
        None,
        "0,25,50 or 0:100:5, linear:11, sigmoid:11, random (default: the task's, mostly 0:100:5)",
        read=depth_schedule,
        metavar="LIST",
        section="length and place",
    )
    num_prompts: int = option(
        10,
        "prompts a length and depth" + SHOWN,
        flag="--num_prompts",
        alias="--num_samples",
        read=positive_int,
        metavar="N",
        section="what to make",
    )
    num_shots: int = option(
        0,
        "worked examples before the passage" + SHOWN,
        flag="--num_shots",
        read=int,
        choices=(0, 1, 2, 3),
        section="what to make",
    )
    num_digits: tuple[int, ...] = option(
        (5,),
        "digits of a key; 4,5 takes turns (default: 5)",
        flag="--num_digits",
        read=digit_counts,
        metavar="N",
        section="what to make",
    )
    seed: int = option(42, "same arguments and seed, same rows" + SHOWN, read=int, section="what to make")
    id: str = option("", "a name that enters the seed, the ids and the hf folder's name", section="what to make")
    task: str = option("passkey", "kind of question; ruler: the suite of 13 tasks" + SHOWN, section="what to make")
    options: Mapping[str, str] = field(default_factory=dict)
    control: Literal["no-context"] | None = option(
        None,
        "no-context: the questions without haystack and needle",
        choices=("no-context",),
        section="what to make",
    )
    haystack: str | None = option(
        None,
        f"{SOURCES} (default: the task's, mostly english)",
        flag="--haystack_dir",
        metavar="H",
        section="haystack and output",
    )
    haystack_per: HaystackPer = option(
        "prompt",
        "what has a haystack of its own" + SHOWN,
        choices=("prompt", "depth", "trial", "run"),
        section="haystack and output",
    )
    allow_repeat: bool = option(False, "repeat a haystack that is too short", section="haystack and output")
    pool_tokens: int | None = option(
        None,
        "haystack text made at most; prompts that it is too small for share text (default: 4m)",
        read=token_count,
        metavar="N",
        section="haystack and output",
    )
    length_includes_answer: bool | None = option(
        None,
        "yes: prompt plus --answer-tokens is N (default: the task's way)",
        values=YES_NO,
        section="length and place",
    )
    answer_budget: int | None = option(
        None,
        "tokens kept free for the answer (default: the task's)",
        flag="--answer-tokens",
        read=positive_int,
        metavar="K",
        section="length and place",
    )
    exact: bool = option(
        True,
        "no: lengths are drawn from N-700..N (default: yes)",
        flag="--is_exact_context_length",
        values=YES_NO,
        section="length and place",
    )
    is_eval: bool = option(
        True,
        "no: training data, the answer follows the question (default: yes)",
        flag="--is_eval",
        values=YES_NO,
        section="what to make",
    )
    segment_length: int | None = option(
        None,
        "the model's segment length, for the three flags below",
        read=token_count,
        metavar="L",
        section="length and place",
    )
    question_phase: str | None = option(
        None,
        "where in its segment the answer is predicted: 0..L-1, border, jitter",
        metavar="PHASE",
        section="length and place",
    )
    needle_segment: int | None = option(
        None, "put the needle into this segment, counted from 0", read=count, metavar="K", section="length and place"
    )
    boundary: Literal["straddle", "before", "after"] | None = option(
        None,
        "put the needle across or beside a segment border",
        choices=("straddle", "before", "after"),
        section="length and place",
    )
    distinct_keys: Literal["call", "cell"] = option(
        "call", "keys differ in the call, or in a cell" + SHOWN, choices=("call", "cell"), section="what to make"
    )
    excluded_keys: Collection[str] = field(default=(), repr=False)
    exclude_keys_from: str | None = option(
        None,
        "a data set whose answers must not be drawn",
        flag="--check_key_in_dataset",
        alias="--exclude-keys-from",
        metavar="DATASET",
        section="what to make",
    )
    char_counts: tuple[int, ...] = option(
        (),
        "instead of --context_length: characters (10k = 10,000), turned into tokens by the haystack's own text",
        flag="--char-count",
        read=character_count,
        several=True,
        metavar="C",
        section="length and place",
    )

    def resolved(self, generator: Generator) -> ResolvedConfig:
        """Fill in what is left open with the task's own way.

        Raises:
            ConfigError: a setting has a value that it cannot have, or the prompts' size is not given in tokens.
        """
        _check_choices(self)
        if not self.context_lengths or min(self.context_lengths) < 1 or self.num_prompts < 1:
            raise ConfigError(
                f"no prompts: lengths {self.context_lengths}, {self.num_prompts} prompts each",
                valid="context lengths in tokens, and at least one prompt",
            )
        includes = self.length_includes_answer
        open_fields: dict[str, Any] = {
            "depths": _checked_depths(self.depths or depth_schedule(generator.depths)),
            "haystack": self.haystack or generator.haystack,
            "pool_tokens": self.pool_tokens or POOL_TOKENS,
            "length_includes_answer": generator.length_includes_answer if includes is None else includes,
            "answer_budget": self.answer_budget or generator.answer_budget,
        }
        return ResolvedConfig(**(vars(self) | open_fields))


@dataclass(frozen=True)
class ResolvedConfig(GenerateConfig):
    """Settings that leave nothing open: with a tokenizer they decide every row."""

    depths: tuple[float | None, ...] = ()
    haystack: str = "english"
    pool_tokens: int = POOL_TOKENS
    length_includes_answer: bool = False
    answer_budget: int = 16


def _checked_depths(depths: tuple[float | None, ...]) -> tuple[float | None, ...]:
    """Depths within 0..100, as whole numbers where all of them are: the column depth_percent then holds such."""
    outside = [depth for depth in depths if depth is not None and not 0 <= depth <= 100]
    if outside:
        raise ConfigError(f"--depth_percent {outside[0]:g} is outside 0..100", valid="percent of the haystack: 0..100")
    whole = all(depth is not None and float(depth).is_integer() for depth in depths)
    return tuple(int(depth) for depth in depths if depth is not None) if whole else depths


def _check_choices(config: GenerateConfig) -> None:
    """Refuse what a flag would not have let through."""
    for section in sections_of(GenerateConfig):
        for one, facts in options_of(GenerateConfig, section):
            value = getattr(config, one.name)
            if facts.choices and value is not None and value not in facts.choices:
                flag = spelling(one, facts)
                raise ConfigError(f"{flag} {value!r} is not known", valid=", ".join(map(str, facts.choices)))
