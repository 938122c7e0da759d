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
from infini_eval.foreign import shown

MOST_TOKENS = 1024**3  # a thousand times the longest context of today: more is a slip of the keyboard
MOST_COUNTED = 10**9  # of anything else that a flag counts
MOST_SECONDS = 10**7  # 115 days; waits of the system end at about 9 * 10**9
MOST_DEPTHS = 10_001
LARGEST_SEED = 2**63 - 1
MOST_DIGITS = 20
MOST_PROCESSES = 65_536
MOST_THREADS = 1_024
MOST_TRIES = 1_000
HOTTEST, COOLEST = 100.0, 1e-4  # temperatures; logits divided by less than this overflow
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
    found = _suffixed(r"(\d+)([kKmM]?)", text, TOKEN_SUFFIXES)
    if not 0 < found <= MOST_TOKENS:
        raise _not(text, "a number of tokens", f"4096, 128k, 1m; at most {MOST_TOKENS:,}")
    return found


def token_count_or_zero(text: str) -> int:
    """The same, or 0."""
    return 0 if text.strip() == "0" else token_count(text)


def character_count(text: str) -> int:
    """ "100000", "10_000", "10k" (x 1,000) or "8m" (x 1,000,000) as a number of characters; people count these in tens."""
    found = _suffixed(r"(\d[\d_]*)([kKmM]?)", text, CHARACTER_SUFFIXES)
    if not 0 < found <= 10 * MOST_TOKENS:
        raise _not(text, "a number of characters", "100000, 10_000, 10k, 8m")
    return found


def _suffixed(pattern: str, text: str, suffixes: Mapping[str, int]) -> int:
    """A number of at most 20 digits with one of these suffixes; 0 for anything else."""
    match = re.fullmatch(pattern, text.strip())
    if not match or len(match[1]) > MOST_DIGITS:
        return 0
    return int(match[1].replace("_", "")) * suffixes.get(match[2].lower(), 1)


def positive_int(text: str) -> int:
    """A whole number of at least 1."""
    return _whole(text, 1)


def count(text: str) -> int:
    """A whole number of at least 0."""
    return _whole(text, 0)


def _whole(text: str, least: int, largest: int = MOST_COUNTED) -> int:
    found = int(text) if text.isdecimal() and len(text) <= MOST_DIGITS else -1
    if not least <= found <= largest:
        most = f" and at most {largest:,}" if text.isdecimal() and found != 0 else ""
        raise _not(text, f"a whole number of at least {least}{most}")
    return found


def process_count(text: str) -> int:
    """How many processes, or devices, or places on a mesh axis: at most MOST_PROCESSES."""
    return _whole(text, 1, MOST_PROCESSES)


def thread_count(text: str) -> int:
    """How many threads: at most MOST_THREADS."""
    return _whole(text, 1, MOST_THREADS)


def try_count(text: str) -> int:
    """How often something is tried: at most MOST_TRIES."""
    return _whole(text, 1, MOST_TRIES)


def port_number(text: str) -> int:
    """A port; 0 takes a free one."""
    return _whole(text, 0, 65_535)


def seed_number(text: str) -> int:
    """A whole number that random generators take."""
    match = re.fullmatch(r"[+-]?\d+", text.strip())
    if not match or len(match[0]) > MOST_DIGITS or abs(int(match[0])) > LARGEST_SEED:
        raise _not(text, "a seed", "a whole number below 2**63")
    return int(match[0])


def gigabytes(text: str) -> float:
    """Gigabytes (10**9 bytes), fractions allowed; at least 0."""
    return _between(text, 0.0, 1e6, "a number of gigabytes of at least 0", "0, 0.5, 4")


def seconds(text: str) -> float:
    """A number of seconds above 0, fractions allowed."""
    return _between(text, 1e-6, MOST_SECONDS, "a number of seconds above 0", f"10, 0.5; at most {MOST_SECONDS:,}")


def seconds_or_zero(text: str) -> float:
    """The same, or 0."""
    return _between(text, 0.0, MOST_SECONDS, "a number of seconds of at least 0", f"0, 0.5; at most {MOST_SECONDS:,}")


def tolerance(text: str) -> float:
    """The largest difference that is taken for none."""
    return _between(text, 0.0, 1e6, "a tolerance", "a number of at least 0")


def rate(text: str) -> float:
    """A share from 0 to 1."""
    return _between(text, 0.0, 1.0, "a share", "0 to 1")


def temperature(text: str) -> float:
    """A temperature of sampling: 0, or what logits can be divided by."""
    valid = f"0, or {COOLEST:g} to {HOTTEST:g}"
    found = _between(text, 0.0, HOTTEST, "a temperature", valid)
    if 0 < found < COOLEST:
        raise _not(text, "a temperature", valid)
    return found


def probability(text: str) -> float:
    """A probability above 0, at most 1."""
    return _between(text, 1e-9, 1.0, "a probability", "above 0, at most 1")


def _between(text: str, low: float, high: float, what: str, valid: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = low - 1
    if not low <= number <= high:  # NaN is nowhere
        raise _not(text, what, valid)
    return number


def _not(text: str, what: str, valid: str = "") -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(f"{shown(text)} is not {what}" + (f" (valid: {valid})" if valid else ""))


def path_name(text: str) -> str:
    """A path; an empty one would be the folder that one happens to be in."""
    if not text.strip():
        raise _not(text, "a path", "a name; . is the folder you are in")
    return text


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
            steps = (stop - start) / step if step > 0 else -1.0
            if not 0 <= steps + 1e-9 < MOST_DEPTHS:
                raise ValueError
            depths = [start + step * i for i in range(int(steps + 1e-9) + 1)]
        else:
            depths = [float(part) for part in text.split(",")]
    except ValueError:
        raise _not(text, "a list of depths", f"50 or 0,25,50 or 0:100:5; at most {MOST_DEPTHS:,} of them") from None
    if not depths or any(not 0 <= depth <= 100 for depth in depths):
        raise argparse.ArgumentTypeError(f"{shown(text)} has depths outside 0..100 percent")
    return tuple(depths)
