"""ruler_vt: RULER's variable tracking: one chain of assignments in repeated noise, all its names asked for."""

from __future__ import annotations

import itertools
import random
import re
from functools import lru_cache
from string import ascii_uppercase

from infini_eval.api.task import Generator, Insert, PromptTokenizer, Question, Recipe, RowInputs
from infini_eval.datasets.sources import FILLER
from infini_eval.errors import ConfigError
from infini_eval.tasks._ruler import drawn_depths, ruler_task

OPTIONS = {"chains": "1", "hops": "4", "example": "yes"}
VALUE_DIGITS = 5
NAME_LETTERS, EXAMPLE_LETTERS = 5, 3  # the example's names are shorter: they can never be those asked for
EXAMPLE_TOKENS, EXAMPLE_STEP, EXAMPLE_ANSWER = 500, 5, 30  # the example's length, its steps in lines of noise
INTRO = "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n"
# "assgined" stands so in the published prompt; scores are compared with models that read it.
QUESTION = (
    "\nQuestion: Find all variables that are assigned the value {value} in the text above. Answer: According to the "
    "chain(s) of variable assignment in the text above, {number} variables are assgined the value {value}, they are: "
)


def question(draw: RowInputs) -> Question:
    """Chains "VAR AAAAA = 12345", "VAR BBBBB = VAR AAAAA", ...; the first chain's value is asked for."""
    chains, hops = draw.int_option("chains"), draw.int_option("hops")
    example = _example(draw, chains, hops)
    used = set(re.findall(r"\d+", example))
    names = _names(draw.rng, chains * (hops + 1), NAME_LETTERS)
    values = [draw.fresh_number(VALUE_DIGITS, used) for _ in range(chains)]
    inserts: list[Insert] = []
    for i, value in enumerate(values):
        lines = _chain(names[i * (hops + 1) : (i + 1) * (hops + 1)], value)
        for line, depth in zip(lines, drawn_depths(draw.rng, len(lines)), strict=True):
            inserts.append(Insert(f" {line}", depth, (1, 1 + len(line)), after="sentence"))
    first = inserts[0]
    inserts.sort(key=lambda insert: insert.depth)
    wanted = tuple(names[: hops + 1])
    suffix = QUESTION.format(value=values[0], number=hops + 1)
    recipe = Recipe(example + INTRO, tuple(inserts), suffix)
    return Question(recipe, " ".join(wanted), wanted, asked=inserts.index(first))


def _chain(names: list[str], value: str) -> list[str]:
    return [f"VAR {names[0]} = {value}", *(f"VAR {b} = VAR {a}" for a, b in itertools.pairwise(names))]


def _example(draw: RowInputs, chains: int, hops: int) -> str:
    """RULER's worked example of at most 500 tokens, its answer included; the same one in every prompt of a kind."""
    if draw.options["example"] not in ("yes", "no"):
        raise ConfigError(f"--option example={draw.options['example']} is not known", valid="example=yes or example=no")
    if draw.options["example"] == "no":
        return ""
    return f"{_longest_example(draw.tokenizer, chains, min(hops, 10))}\n\n\n\n"


@lru_cache(maxsize=8)
def _longest_example(tokenizer: PromptTokenizer, chains: int, hops: int) -> str:
    text = _example_text(EXAMPLE_STEP, chains, hops)
    for lines in itertools.count(2 * EXAMPLE_STEP, EXAMPLE_STEP):
        longer = _example_text(lines, chains, hops)
        if tokenizer.count(longer) + EXAMPLE_ANSWER > EXAMPLE_TOKENS:
            break
        text = longer
    return text


def _example_text(lines: int, chains: int, hops: int) -> str:
    rng = random.Random(f"ruler_vt/{chains}/{hops}")
    names = _names(rng, chains * (hops + 1), EXAMPLE_LETTERS)
    values = rng.sample(range(10 ** (VALUE_DIGITS - 1), 10**VALUE_DIGITS), chains)
    noise = [FILLER.strip() + "\n"] * lines
    if lines <= hops + 1:  # fewer lines than assignments: sentence by sentence
        noise = [f"{sentence}." for sentence in (FILLER * lines).strip(" .").split(". ")]
    for i, value in enumerate(values):
        chain = _chain(names[i * (hops + 1) : (i + 1) * (hops + 1)], str(value))
        places = sorted(rng.sample(range(len(noise)), len(chain)))
        for moved, (place, line) in enumerate(zip(places, chain, strict=True)):
            noise.insert(place + moved, line)
    asked = QUESTION.format(value=values[0], number=hops + 1)
    return f"{INTRO}{' '.join(noise)}{asked}{' '.join(names[: hops + 1])}"


def _names(rng: random.Random, number: int, letters: int) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < number:
        found["".join(ascii_uppercase[rng.randrange(26)] for _ in range(letters))] = None
    return list(found)


GENERATOR = Generator(
    question,
    "noise",
    answer_budget=30,
    length_includes_answer=True,
    options=OPTIONS,
    notes=("ruler_vt: assignments stand at RULER's 40 depths after sentences of the noise, not at random lines of it",),
)
TASK = ruler_task("ruler_vt", GENERATOR, 30)
