"""Settings that are also flags: how a dataclass field states its flag, and how the texts of flags are read.

A field made by `option` holds everything that a flag needs beside its default, so that a setting is written once:
command lines are built from the dataclass (`infini_eval.cli.flags.add_options`), and Python callers pass the field.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from typing import Any

from infini_eval.errors import ConfigError

TOKEN_SUFFIXES = {"k": 1024, "m": 1024**2}
CHARACTER_SUFFIXES = {"k": 1_000, "m": 1_000_000}
_METADATA = "infini_eval.option"


@dataclass(frozen=True)
class Option:
    """The flag of one field.

    flag: its spelling, --field-name where None. read: from text to value. choices: the values it may have. values: texts
    and what they stand for, for values that are no text. metavar: what help shows for the value. section: which part of
    a command's flags it belongs to, for dataclasses whose fields are not all shown together. several: it takes one or
    more values, separated by blanks, as a tuple. alias: another spelling that is accepted.
    """

    help: str
    flag: str | None = None
    read: Callable[[str], Any] | None = None
    choices: Sequence[Any] | None = None
    values: Mapping[str, Any] | None = None
    metavar: str | None = None
    section: str | None = None
    several: bool = False
    alias: str | None = None


def option(default: Any, help: str, **facts: Any) -> Any:
    """A dataclass field with a default that is also a flag; `facts` are the other fields of `Option`.

    A field that is False by default is a switch; one that is True is switched off by --no-field-name.
    """
    return field(default=default, metadata={_METADATA: Option(help, **facts)})


def options_of(settings: type, section: str | None = None) -> Iterator[tuple[Field[Any], Option]]:
    """The fields that a dataclass itself adds (not those of its bases) and their options, in order."""
    inherited = {
        one.name for base in settings.__bases__ if hasattr(base, "__dataclass_fields__") for one in fields(base)
    }
    for one in fields(settings):
        found: Option | None = one.metadata.get(_METADATA)
        if found is not None and one.name not in inherited and found.section == section:
            yield one, found


def sections_of(settings: type) -> tuple[str | None, ...]:
    """The sections of a dataclass's options, those that it inherits included, in the order of its fields."""
    stated = [one.metadata[_METADATA] for one in fields(settings) if _METADATA in one.metadata]
    return tuple(dict.fromkeys(one.section for one in stated))


def spelling(one: Field[Any], found: Option) -> str:
    """The flag as documents write it."""
    return found.flag or f"--{'no-' if one.default is True else ''}{one.name.replace('_', '-')}"


def token_count(text: str) -> int:
    """ "4096", "128k" (x 1,024) or "1m" (x 1,048,576) as a number of tokens."""
    match = re.fullmatch(r"(\d+)([kKmM]?)", text.strip())
    if not match or int(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of tokens (valid: 4096, 128k, 1m)")
    return int(match[1]) * TOKEN_SUFFIXES.get(match[2].lower(), 1)


def token_count_or_zero(text: str) -> int:
    """The same, or 0."""
    return 0 if text.strip() == "0" else token_count(text)


def positive_int(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def character_count(text: str) -> int:
    """ "100000", "10_000", "10k" (x 1,000) or "8m" (x 1,000,000) as a number of characters; people count these in tens."""
    match = re.fullmatch(r"(\d[\d_]*)([kKmM]?)", text.strip())
    number = int(match[1].replace("_", "")) * CHARACTER_SUFFIXES.get(match[2].lower(), 1) if match else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of characters (valid: 100000, 10_000, 10k, 8m)")
    return number


def count(text: str) -> int:
    """A whole number of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def gigabytes(text: str) -> float:
    """Gigabytes (10**9 bytes), fractions allowed; at least 0."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of gigabytes of at least 0 (valid: 0, 0.5, 4)")
    return number


def seconds(text: str) -> float:
    """A number of seconds above 0, fractions allowed."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0 (valid: 10, 0.5)")
    return number


def option_pairs(words: list[str]) -> dict[str, str]:
    """The values of a repeated --option NAME=VALUE by name; ConfigError for one that is no such pair."""
    wrong = [word for word in words if "=" not in word]
    if wrong:
        raise ConfigError(f"--option {wrong[0]!r} is not a setting", valid="--option NAME=VALUE")
    return dict(word.split("=", 1) for word in words)


def column_pairs(text: str) -> tuple[tuple[str, str], ...]:
    """ "prompt=question,answer=target" as pairs of our columns and the data's."""
    pairs = [tuple(part.partition("=")[::2]) for part in text.split(",")]
    if not all(ours.strip() and theirs.strip() for ours, theirs in pairs):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a mapping of columns (valid: prompt=question,answer=target; prompt=context+question joins two)"
        )
    return tuple((ours.strip(), theirs.strip()) for ours, theirs in pairs)


def names_list(text: str) -> tuple[str, ...]:
    """ "tensorboard,csv" as names."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def depth_percent(text: str) -> float:
    """A depth in percent, 0..100."""
    depths = depth_list(text)
    if len(depths) != 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not one depth (valid: 0 to 100; several are separated by blanks)"
        )
    return depths[0]


def depth_list(text: str) -> tuple[float, ...]:
    """ "50", "0,25,50" or "0:100:5" (start:stop:step, both ends included) as depths in percent."""
    try:
        if ":" in text:
            start, stop, step = (float(part) for part in text.split(":"))
            if step <= 0:
                raise ValueError
            depths = [start + step * i for i in range(int((stop - start) / step + 1e-9) + 1)]
        else:
            depths = [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of depths (valid: 50 or 0,25,50 or 0:100:5)"
        ) from None
    if not depths or any(not 0 <= depth <= 100 for depth in depths):
        raise argparse.ArgumentTypeError(f"{text!r} has depths outside 0..100 percent")
    return tuple(depths)
