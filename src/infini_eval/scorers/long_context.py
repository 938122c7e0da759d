"""The published rules of long-context tasks: GraphWalks' sets, BABILong's labels, MRCR's texts, LongBench v2's letters."""

from __future__ import annotations

import json
import re
from difflib import SequenceMatcher

from infini_eval.api.scorer import scorer
from infini_eval.records import CHOICES, Sample, Score

FINAL = "Final Answer:"
_BRACKETS = re.compile(r"\[.*\]")


@scorer
def set_f1(generation: str, sample: Sample) -> Score:
    """set_f1 (GraphWalks): F1 of the nodes that the very last line lists after "Final Answer:" against the right ones.

    Order and repetition do not count. 0.0 where that line is not of the form; 1.0 where both sets are empty.
    """
    said = nodes_of(generation)
    if said is None:
        return Score(0.0)
    right = set(_listed(sample.columns.get("outputs")))
    shared = len(said & right)
    value = 2 * shared / (len(said) + len(right)) if said or right else 1.0
    return Score(value, ", ".join(sorted(said)))


def nodes_of(generation: str) -> set[str] | None:
    """The nodes that the last line lists in brackets, None where it is not of the form."""
    last = generation.rpartition("\n")[2]
    listed = _BRACKETS.search(last) if FINAL in last else None
    if listed is None:
        return None
    return {name.strip() for name in listed.group().strip("[]").split(",") if name.strip()}


_ENDS = (".", "<context>", "<example>")


@scorer
def only_label(generation: str, sample: Sample) -> Score:
    """only_label (BABILong): the answer's first sentence names the right label and no other, those of the question aside.

    Case is ignored; labels are the column `labels`, and count as parts of words too, as published.
    """
    said = first_sentence(generation)
    asked = str(sample.columns.get("question", "")).lower()
    labels = {label.lower() for label in _listed(sample.columns.get("labels", ()))}
    named = {label for label in labels if label in said and label not in asked}
    return Score(float(named == {sample.answer.lower()}), ", ".join(sorted(named)) or None)


@only_label.settled
def _sentence_has_ended(generation: str, sample: Sample) -> bool:
    return any(end in generation.lower() for end in _ENDS)


def first_sentence(generation: str) -> str:
    """An answer as BABILong reads it: in lower case, up to the first full stop or the beginning of an example."""
    text = generation.lower()
    for end in _ENDS:
        text = text.partition(end)[0]
    return text


def _listed(value: object) -> list[str]:
    """A column of several texts: a list, or JSON of one."""
    found = json.loads(value) if isinstance(value, str) else value
    return [str(one) for one in found] if isinstance(found, list | tuple) else []


@scorer
def prefixed_ratio(generation: str, sample: Sample) -> Score:
    """prefixed_ratio (MRCR): how alike the answer and the right text are, by difflib's SequenceMatcher, 0 without the prefix.

    The prefix is the column `random_string_to_prepend`; it is taken off both. White space before the answer does not count,
    since completions begin with a space where replies of chats do not.
    """
    prefix = str(sample.columns.get("random_string_to_prepend", ""))
    text = generation.lstrip()
    if not text.startswith(prefix):
        return Score(0.0)
    said = text.removeprefix(prefix)
    return Score(SequenceMatcher(None, said, sample.answer.removeprefix(prefix)).ratio(), said)


@prefixed_ratio.settled
def _has_another_beginning(generation: str, sample: Sample) -> bool:
    prefix, text = str(sample.columns.get("random_string_to_prepend", "")), generation.lstrip()
    return not text.startswith(prefix[: len(text)])


_CHOSEN = (re.compile(r"The correct answer is \(([A-D])\)"), re.compile(r"The correct answer is ([A-D])"))


@scorer
def choice_letter(generation: str, sample: Sample) -> Score:
    """choice_letter (LongBench v2): the first "The correct answer is (X)", else "The correct answer is X", names the letter.

    Asterisks do not count. Where the likeliest of the letters was measured, it is the answer itself.
    """
    measured = CHOICES in sample.columns
    said = generation.strip() if measured else chosen_letter(generation)
    return Score(float(said == sample.columns.get("letter")), said)


@choice_letter.settled
def _letter_is_there(generation: str, sample: Sample) -> bool:
    """With brackets the first one counts whatever follows; measured letters need no text at all."""
    return CHOICES in sample.columns or _CHOSEN[0].search(generation.replace("*", "")) is not None


def chosen_letter(generation: str) -> str | None:
    """The letter that an answer chooses, None where it chooses none."""
    text = generation.replace("*", "")
    found = next((match for pattern in _CHOSEN if (match := pattern.search(text))), None)
    return found[1] if found else None
