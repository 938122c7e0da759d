"""What others wrote, where it enters and where it is shown: files of bounded size, JSON, numbers in bounds, text that is safe.

A file of a checkpoint, a record of a run, a server's reply: each is read through here, and what it holds is quoted
through `shown`, so that a mistake in it, or malice, costs one message.
"""

from __future__ import annotations

import json
import math
import re
import reprlib
import stat
from pathlib import Path
from typing import Any

from infini_eval.errors import InfiniEvalError, in_one_line

MOST_TEXT_BYTES = 64 * 1024**2  # of a file that is read whole; data and records are read otherwise
MOST_SHOWN = 120  # characters of a value in a message
REPLACED = "\ufffd"
# What moves a terminal's cursor or turns its text around: controls but tab and line feed, and the bidirectional marks.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def valid_text(text: str) -> str:
    """The text as Unicode: what stands for half a character, which no file can hold, is replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def visible(text: str) -> str:
    """The text with everything that would act on a terminal written out (\\x1b, \\u202e, \\r); tabs and line ends stay."""
    return _UNSEEN.sub(_written_out, text)


def _written_out(match: re.Match[str]) -> str:
    code = ord(match[0])
    return "\\r" if code == 13 else f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def shown(value: Any, most: int = MOST_SHOWN) -> str:
    """The value as a message quotes it: in one line, `most` characters of it."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = most
    try:
        text = visible(short.repr(value))
    except (ValueError, RecursionError):  # a number of more digits than Python writes
        text = f"a {type(value).__name__} too long to be shown"
    return text if len(text) <= most + 2 else f"{text[:most]}…"


def read_text(path: Path, error: type[InfiniEvalError], most: int = MOST_TEXT_BYTES) -> str:
    """A file's text; `error` where it is no file, is too large, or is not UTF-8."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise error(f"{path} is not a file")
        if found.st_size > most:
            raise error(
                f"{path} is too large to be what its name says: {found.st_size:,} bytes", valid=f"up to {most:,}"
            )
        with path.open("rb") as file:
            return file.read(most).decode("utf-8")
    except OSError as problem:
        raise error(f"{path} cannot be read: {problem.strerror or problem}") from None
    except UnicodeDecodeError as problem:
        raise error(f"{path} is not UTF-8 text: {problem.reason} at byte {problem.start}") from None


def read_json(path: Path, error: type[InfiniEvalError], most: int = MOST_TEXT_BYTES) -> Any:
    """A JSON file's value; `error` where it cannot be read."""
    try:
        return parse_json(read_text(path, error, most))
    except ValueError as problem:
        if isinstance(problem, InfiniEvalError):  # some of ours are ValueErrors as well
            raise
        raise error(f"{path} is not valid JSON: {in_one_line(problem, MOST_SHOWN)}") from None


def read_json_object(path: Path, error: type[InfiniEvalError], most: int = MOST_TEXT_BYTES) -> dict[str, Any]:
    """The same for a file that must hold an object."""
    found = read_json(path, error, most)
    if not isinstance(found, dict):
        raise error(f"{path} does not hold a JSON object, but {shown(found)}")
    return found


def parse_json(text: str | bytes) -> Any:
    """A JSON text's value, in which every text is valid Unicode; ValueError where it is none, or is nested too deeply."""
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    halves = (b"\\ud", b"\\uD") if isinstance(text, bytes) else ("\\ud", "\\uD")
    return _valid(found) if any(half in text for half in halves) else found  # type: ignore[operator]


def _valid(value: Any) -> Any:
    if isinstance(value, str):
        return valid_text(value)
    if isinstance(value, dict):
        return {valid_text(name): _valid(one) for name, one in value.items()}
    return [_valid(one) for one in value] if isinstance(value, list) else value


def as_whole(value: Any, low: int, high: int) -> int | None:
    """The value if it is a whole number between these bounds (both included), else None; 5.0 is one, True and "5" are not."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not low <= value <= high or value != int(value):  # also false for NaN
        return None
    return int(value)


def as_number(value: Any, low: float = -math.inf, high: float = math.inf) -> float | None:
    """The value as a finite number between these bounds (both included), else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
