"""How the values of flags are read: token counts with suffixes, whole numbers, depths; each says what is valid."""

from __future__ import annotations

import argparse
import re

from infini_eval.errors import ConfigError

TOKEN_SUFFIXES = {"k": 1024, "m": 1024**2}


def token_count(text: str) -> int:
    """ "4096", "128k" (x 1,024) or "1m" (x 1,048,576) as a number of tokens."""
    match = re.fullmatch(r"(\d+)([kKmM]?)", text.strip())
    if not match or int(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of tokens (valid: 4096, 128k, 1m)")
    return int(match[1]) * TOKEN_SUFFIXES.get(match[2].lower(), 1)


def positive_int(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


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


def option_pairs(words: list[str]) -> dict[str, str]:
    """The values of a repeated --option NAME=VALUE by name; ConfigError for one that is no such pair."""
    wrong = [word for word in words if "=" not in word]
    if wrong:
        raise ConfigError(f"--option {wrong[0]!r} is not a setting", valid="--option NAME=VALUE")
    return dict(word.split("=", 1) for word in words)


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
