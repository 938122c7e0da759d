"""chat_digits: exact_digits for replies as chat models write them: "1,234", "1. 1234", "the 1st one is 1234"."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from infini_eval.api.scorer import scorer
from infini_eval.records import Sample, Score

_SEPARATORS = ",'\u2019\u00a0\u2009\u202f"  # comma, apostrophes, no-break and thin spaces
_NUMBER = re.compile(rf"[0-9]{{1,3}}(?:[{_SEPARATORS}][0-9]{{3}})+(?![0-9])|[0-9]+")
_ORDINAL = re.compile(r"(?:st|nd|rd|th)\b", re.IGNORECASE)
_MARKED = re.compile(r"[.)](?=\s)")
_LIST_DIGITS = 2
_NEEDED_BEHIND = 4  # characters that decide how a number is read: a separator with three digits, an ordinal's ending


@dataclass(frozen=True)
class _Found:
    """A number of the text: its digits, where it ends, and how it may be read with other text behind it."""

    digits: str
    end: int
    passed_over: bool
    may_be_an_item: bool
    may_grow: bool


@scorer
def chat_digits(generation: str, sample: Sample) -> Score:
    """chat_digits: 1.0 when the first number that is meant as an answer equals the answer's digits, else 0.0.

    Digits of any script count as their values. A number in groups of three digits is one number. Passed over are
    ordinals, and numbers of list items: one or two digits at the start of a line, followed by "." or ")" and white
    space, unless the answer itself has so few digits. Where nothing else is left, the first one passed over is read.
    """
    found = _numbers(generation, sample)
    chosen = next((number for number in found if not number.passed_over), found[0] if found else None)
    if chosen is None:
        return Score(value=0.0)
    return Score(value=float(chosen.digits == _ascii_digits(sample.answer.strip())), extracted=chosen.digits)


@chat_digits.settled
def _sure_of_its_number(generation: str, sample: Sample) -> bool:
    """A number that counts stands there, with enough text behind it to be sure where it ends and that it counts."""
    text = _ascii_digits(generation)
    chosen = next((number for number in _numbers(generation, sample) if not number.passed_over), None)
    if chosen is None:
        return False
    behind = text[chosen.end :]
    if not behind:
        return False
    open_ended = behind[0].isalnum() or (chosen.may_grow and behind[0] in _SEPARATORS)
    open_ended = open_ended or (chosen.may_be_an_item and behind[0] in ".)")
    return len(behind) > (_NEEDED_BEHIND if open_ended else 0)


def _numbers(generation: str, sample: Sample) -> list[_Found]:
    """Every number of the text in order, without its separators."""
    text = _ascii_digits(generation)
    return [_found(text, match, sample) for match in _NUMBER.finditer(text)]


def _found(text: str, match: re.Match[str], sample: Sample) -> _Found:
    digits = "".join(c for c in match.group() if c.isdecimal())
    line = text[text.rfind("\n", 0, match.start()) + 1 : match.start()]
    item = len(match.group()) <= _LIST_DIGITS < len(sample.answer.strip()) and not line.strip(" \t*#-")
    ordinal = _ORDINAL.match(text, match.end()) is not None
    passed_over = ordinal or (item and _MARKED.match(text, match.end()) is not None)
    grouped = len(digits) < len(match.group())
    return _Found(digits, match.end(), passed_over, item, grouped or len(digits) <= 3)


def _ascii_digits(text: str) -> str:
    """Decimal digits of every script (full-width ones too) as 0 to 9; the text keeps its length."""
    if text.isascii():
        return text
    return "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text)
