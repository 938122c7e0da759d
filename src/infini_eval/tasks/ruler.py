"""RULER (Hsieh et al. 2024, arXiv 2404.06654): the suite of 13 tasks, and its eight needle-in-a-haystack tasks.

The other five are in ruler_lists.py (variables, common and frequent words) and ruler_qa.py (questions over documents).
"""

from __future__ import annotations

import random

from infini_eval.api.task import Generator, Insert, Question, Recipe, RowInputs, Task
from infini_eval.data.english import NUMBER_DIGITS, Kind, needle_sentence, random_uuid, word_pair
from infini_eval.tasks._needles import locate, validate

SUITE = (
    "ruler_niah_single_1", "ruler_niah_single_2", "ruler_niah_single_3",
    "ruler_niah_multikey_1", "ruler_niah_multikey_2", "ruler_niah_multikey_3",
    "ruler_niah_multivalue", "ruler_niah_multiquery",
    "ruler_vt", "ruler_cwe", "ruler_fwe", "ruler_qa_1", "ruler_qa_2",
)  # fmt: skip
DEPTHS = 40  # evenly spaced points 0..100 that needles are put at
ESSAYS_NOTE = (
    "RULER's essays are not shipped: with generated English instead of --haystack_dir ESSAYS the scores are "
    "not comparable with published scores"
)
NEEDLES_NOTE = "the haystack's sentences are parted by spaces, where RULER has a line each"


def fresh(kind: Kind, draw: RowInputs, used: set[str]) -> str:
    """A key or value of a kind that is not in `used` (it is added there)."""
    if kind == "numbers":
        return draw.fresh_number(NUMBER_DIGITS, used)
    while True:
        value = random_uuid(draw.rng) if kind == "uuids" else word_pair(draw.rng, part=1)
        if value not in used:
            used.add(value)
            return value


def drawn_depths(rng: random.Random, number: int) -> list[float]:
    """`number` of RULER's 40 depths, sorted; no depth twice while there are enough."""
    points = [round(100 * i / (DEPTHS - 1)) for i in range(DEPTHS)]
    rng.shuffle(points)
    return sorted(float(points[i % DEPTHS]) for i in range(number))


def niah_question(
    draw: RowInputs,
    *,
    keys: int = 1,
    values: int = 1,
    queries: int = 1,
    key_kind: Kind = "words",
    value_kind: Kind = "numbers",
) -> Question:
    """RULER's needle-in-a-haystack: `keys` keys with `values` values each, `queries` of them asked for.

    The asked needle of a single-answer variant stands at the row's depth, all others at RULER's 40 depths: a row of
    several answers is labelled with the depth of the first one's needle.
    """
    used: set[str] = set()
    names = [fresh(key_kind, draw, used) for _ in range(max(keys, queries))]
    table = {name: [fresh(value_kind, draw, used) for _ in range(values)] for name in names}
    needles = [(name, value) for name in names for value in table[name]]
    asked = names[:queries]
    outputs = tuple(value for name in asked for value in table[name])
    inserts = _placed(draw, needles, value_kind, single=len(outputs) == 1)
    recipe = Recipe(_niah_intro(value_kind, len(outputs)), inserts, _niah_question(asked, value_kind, len(outputs)))
    first = needle_sentence(value_kind, *needles[0])
    place = next(i for i, insert in enumerate(inserts) if insert.text.strip() == first)
    label = {} if len(outputs) == 1 else {"depth_percent": inserts[place].depth}
    return Question(recipe, ", ".join(outputs), outputs, asked=place, columns=label)


def _placed(draw: RowInputs, needles: list[tuple[str, str]], kind: Kind, single: bool) -> tuple[Insert, ...]:
    first = [draw.depth] if single else drawn_depths(draw.rng, 1)
    depths = first + drawn_depths(draw.rng, len(needles) - 1)
    inserts = []
    for (key, value), depth in zip(needles, depths, strict=True):
        text = needle_sentence(kind, key, value)
        inserts.append(Insert(f" {text}", depth, (1, 1 + len(text)), after="sentence"))
    return tuple(sorted(inserts, key=lambda insert: insert.depth))


def _niah_intro(kind: Kind, answers: int) -> str:
    noun = kind if answers > 1 else kind.removesuffix("s")
    some = "Some special magic" if answers > 1 else "A special magic"
    verb = "are" if answers > 1 else "is"
    return (
        f"{some} {noun} {verb} hidden within the following text. Make sure to memorize it. "
        f"I will quiz you about the {noun} afterwards.\n"
    )


def _niah_question(asked: list[str], kind: Kind, answers: int) -> str:
    noun, verb = (kind, "are") if answers > 1 else (kind.removesuffix("s"), "is")
    names = asked[0] if len(asked) == 1 else ", ".join(asked[:-1]) + ", and " + asked[-1]
    every = "all " if answers > 1 else ""
    what = f"What {verb} {every}the special magic {noun} for {names} mentioned in the provided text?"
    return f"\n{what} The special magic {noun} for {names} mentioned in the provided text {verb}"


def ruler_task(name: str, generator: Generator, max_new_tokens: int, scorer: str = "string_match_all") -> Task:
    """A task with RULER's scoring; its context length includes the tokens to generate."""
    return Task(name, (scorer, "contains"), max_new_tokens, validate=validate, locate=locate, generator=generator)


def _niah(name: str, haystack: str, **shape: object) -> Task:

    def question(draw: RowInputs) -> Question:
        return niah_question(draw, **shape)  # type: ignore[arg-type]

    notes = (ESSAYS_NOTE,) if haystack == "english" else (NEEDLES_NOTE,) if "needles" in haystack else ()
    generator = Generator(question, haystack, answer_budget=128, length_includes_answer=True, notes=notes)
    return ruler_task(name, generator, 128)


TASKS: dict[str, Task] = {
    "ruler_niah_single_1": _niah("ruler_niah_single_1", "noise"),
    "ruler_niah_single_2": _niah("ruler_niah_single_2", "english"),
    "ruler_niah_single_3": _niah("ruler_niah_single_3", "english", value_kind="uuids"),
    "ruler_niah_multikey_1": _niah("ruler_niah_multikey_1", "english", keys=4),
    "ruler_niah_multikey_2": _niah("ruler_niah_multikey_2", "needles"),
    "ruler_niah_multikey_3": _niah("ruler_niah_multikey_3", "uuid-needles", key_kind="uuids", value_kind="uuids"),
    "ruler_niah_multivalue": _niah("ruler_niah_multivalue", "english", values=4),
    "ruler_niah_multiquery": _niah("ruler_niah_multiquery", "english", keys=4, queries=4),
}
