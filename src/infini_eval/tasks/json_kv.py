"""json_kv: the value of one key of a JSON object as long as the context, all keys and values random UUIDs.

The form of question is that of Liu et al. 2023 (Lost in the Middle, arXiv 2307.03172); the wording is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from infini_eval.api.task import Generator, Question, RowInputs, Task
from infini_eval.data.english import random_uuid
from infini_eval.tasks._fitting import filling, largest_that_fits, no_exact_prompt
from infini_eval.tasks._needles import locate, validate

BEFORE = "Here is a JSON object. Find the value that belongs to one of its keys.\n\n"
AFTER = '\n\nWhat is the value of the key "{key}"? The value of this key is "'
LONGEST_VALUE = 240  # characters of the one value that may be longer or shorter, so that the length is exact
FEWER_PAIRS = 3  # that may go for the same purpose
FEWEST_PAIRS = 2
NOTE = "json_kv: the wording is ours, so scores are not comparable with published ones of the same form"

Pair = tuple[str, str]


class _Pairs:
    """Different random pairs in the order drawn; the first is the one asked for."""

    def __init__(self, draw: RowInputs) -> None:
        self._rng = draw.rng
        self._drawn: list[Pair] = []

    def first(self, number: int) -> list[Pair]:
        while len(self._drawn) < number:
            self._drawn.append((random_uuid(self._rng), random_uuid(self._rng)))
        return self._drawn[:number]


def line(pair: Pair) -> str:
    """A pair as it stands in the object."""
    return f'"{pair[0]}": "{pair[1]}"'


def question(draw: RowInputs) -> Question:
    """As many pairs as fit, the asked one at its depth; one other's value has another length so that all is exact."""
    pairs = _Pairs(draw)
    filler = random_uuid(draw.rng)
    digits = random_uuid(draw.rng).replace("-", "")

    def made(number: int, value: str = "") -> str:
        return _prompt(pairs.first(number), draw.depth, (filler, value.replace(" ", "")))

    fits = largest_that_fits(lambda n: draw.tokenizer.count(made(n)), draw.target, smallest=FEWEST_PAIRS)
    characters = (digits * (1 + LONGEST_VALUE // len(digits)))[:LONGEST_VALUE]
    text = _exactly(made, fits, characters, draw)
    asked = pairs.first(1)[0]
    needle = text.index(line(asked))
    context = (len(BEFORE), text.rindex("\n\n"))
    return Question(
        None,
        asked[1],
        text=text,
        needles=((needle, needle + len(line(asked))),),
        context=context,
        columns={"haystack": "json"},
    )


def _exactly(made: Callable[[int, str], str], fits: int, characters: str, draw: RowInputs) -> str:
    for number in range(fits, max(FEWEST_PAIRS, fits - FEWER_PAIRS) - 1, -1):
        value = filling(partial(made, number), characters, draw.target, draw.tokenizer)
        if value is not None:
            return made(number, value)
    raise no_exact_prompt(draw.target, draw.tokenizer)


def _prompt(pairs: Sequence[Pair], depth: float, filler: Pair) -> str:
    """The object with its first pair at `depth` percent of the others; `filler` is the last of these."""
    asked, others = pairs[0], [*pairs[1:], filler]
    place = round(depth / 100 * len(others))
    lines = ",\n ".join(map(line, [*others[:place], asked, *others[place:]]))
    return f"{BEFORE}{{{lines}}}{AFTER.format(key=asked[0])}"


TASK = Task(
    name="json_kv",
    scorers=("contains", "exact_match"),
    max_new_tokens=64,
    validate=validate,
    locate=locate,
    generator=Generator(question, answer_budget=64, needs_haystack=False, notes=(NOTE,), depths="0:100:25"),
)
