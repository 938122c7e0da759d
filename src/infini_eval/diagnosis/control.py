"""Control prompts: the same rows with the needle in the question's own segment, where no memory is needed.

A model that fails there as well is broken elsewhere, and nothing may be said about its memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from infini_eval.api.backend import WorkItem
from infini_eval.api.task import Span
from infini_eval.backends.nanotron import prepare_sample
from infini_eval.data.passkey import find_passkey, question_start
from infini_eval.data.tokenizer import Tokenizer

TRIES = 8  # joints may be tokenised otherwise than the parts were
SPARE = 2  # tokens of the segment left free for that, beside the answer's


@dataclass(frozen=True)
class _Parts:
    """A prompt taken apart: its text without the needle and the question, and these two."""

    filler: str
    needle: str
    question: str


def is_control(item: WorkItem) -> bool:
    """Whether needle, question and answer stand in one segment."""
    at = item.position
    return at.compressions == 0 and not at.straddles_border and not at.answer_crosses_border


def control_of(item: WorkItem, tokenizer: Tokenizer, length: int) -> WorkItem | None:
    """The row with its needle moved into the question's segment, answer included; all else is the row's own filler.

    Where the question stands too near a border, filler before the needle is dropped, less than one segment of it. None
    where needle, question and answer do not fit into `length` tokens, or the needle is not found.
    """
    parts = _take_apart(item)
    if parts is None:
        return None
    _, offsets = tokenizer.encode_with_offsets(parts.filler, add_special_tokens=False)
    fixed = sum(tokenizer.count(text, add_special_tokens=False) for text in (parts.needle, parts.question))
    answer = tokenizer.count(item.sample.answer, add_special_tokens=False)
    room = length - fixed - answer - SPARE
    if room < 0 or not len(offsets):
        return None
    starts = [int(start) for start, _ in offsets]
    after = min(room // 2, len(starts) - 1)
    place = len(starts) - after
    highest, lowest = length - 1 - answer - SPARE, fixed + after
    phase = (len(tokenizer.special_prefix) + len(starts) + fixed + len(tokenizer.special_suffix) - 1) % length
    drop = max(0, phase - highest) if phase >= lowest else phase + length - highest
    for extra in range(TRIES):
        first = max(0, place - drop - extra)
        made = _put_together(item, parts, (_at(starts, first), _at(starts, place)), tokenizer, length)
        if is_control(made):
            return made
    return None


def _take_apart(item: WorkItem) -> _Parts | None:
    prompt = item.sample.prompt
    span, question = find_passkey(prompt, item.sample.answer), question_start(prompt)
    if span is None or span[1] > question or question == len(prompt):
        return None
    start, end = span
    return _Parts(prompt[:start] + prompt[end:question].lstrip(), prompt[start:end], prompt[question:])


def _at(starts: Sequence[int], token: int) -> int | None:
    """Where a token starts in the text; None behind the last one, where a slice ends by itself."""
    return starts[token] if token < len(starts) else None


def _put_together(
    item: WorkItem, parts: _Parts, dropped: tuple[int | None, int | None], tokenizer: Tokenizer, length: int
) -> WorkItem:
    """The filler without the dropped characters, the needle where they ended, the question at the end."""
    first, place = dropped
    before = parts.filler[:first].rstrip() + " "
    after = "" if place is None else parts.filler[place:].lstrip()
    prompt = f"{before}{parts.needle} {after}{parts.question}"
    needle: Span = (len(before), len(before) + len(parts.needle))
    sample = replace(item.sample, id=f"{item.sample.id}-control", prompt=prompt)
    return prepare_sample(sample, needle, tokenizer, length)
