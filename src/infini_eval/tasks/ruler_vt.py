"""ruler_vt: RULER's variable tracking: one chain of assignments in repeated noise, all its names asked for."""

from __future__ import annotations

import itertools
import random

from infini_eval.datasets.compose import Insert, Recipe
from infini_eval.datasets.question import Draw, Generator, Question
from infini_eval.tasks._ruler import drawn_depths, ruler_task

OPTIONS = {"chains": "1", "hops": "4"}
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
VALUE_DIGITS = 5
INTRO = "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n"


def question(draw: Draw) -> Question:
    """Chains "VAR AAAAA = 12345", "VAR BBBBB = VAR AAAAA", ...; the first chain's value is asked for."""
    chains, hops = draw.whole("chains"), draw.whole("hops")
    used: set[str] = set()
    names = _names(draw.rng, chains * (hops + 1))
    values = [draw.fresh_number(VALUE_DIGITS, used) for _ in range(chains)]
    inserts: list[Insert] = []
    for i, value in enumerate(values):
        own = names[i * (hops + 1) : (i + 1) * (hops + 1)]
        lines = [f"VAR {own[0]} = {value}.", *(f"VAR {b} = VAR {a}." for a, b in itertools.pairwise(own))]
        for line, depth in zip(lines, drawn_depths(draw.rng, len(lines)), strict=True):
            inserts.append(Insert(f" {line}", depth, (1, 1 + len(line)), after="sentence"))
    first = inserts[0]
    inserts.sort(key=lambda insert: insert.depth)
    wanted = tuple(names[: hops + 1])
    suffix = (
        f"\nQuestion: Find all variables that are assigned the value {values[0]} in the text above. Answer: According "
        f"to the chain(s) of variable assignment in the text above, {hops + 1} variables are assigned the value "
        f"{values[0]}, they are: "
    )
    return Question(Recipe(INTRO, tuple(inserts), suffix), " ".join(wanted), wanted, asked=inserts.index(first))


def _names(rng: random.Random, number: int) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < number:
        found["".join(LETTERS[rng.randrange(26)] for _ in range(5))] = None
    return list(found)


GENERATOR = Generator(
    question,
    "filler",
    answer_budget=30,
    length_includes_answer=True,
    options=OPTIONS,
    notes=("ruler_vt is made without RULER's worked example",),
)
TASK = ruler_task("ruler_vt", GENERATOR, 30)
