"""multi_needle: several named numbers in one haystack, all asked for at once; the score is the share recalled."""

from __future__ import annotations

from infini_eval.api.task import Generator, Insert, Question, Recipe, RowInputs, Task
from infini_eval.errors import ConfigError
from infini_eval.tasks._needles import locate, spread, validate

NAMES = ("red", "blue", "green", "silver", "golden", "black", "white", "purple", "orange", "bronze")
OPTIONS = {"needles": "3", "digits": "6"}
INTRO = (
    "Several box codes are hidden in the text below. Find and memorize all of them. I will ask for them afterwards.\n\n"
)


def question(draw: RowInputs) -> Question:
    """Needles "The code of the red box is 123456."; the first at the asked depth, the others spread evenly."""
    number = draw.int_option("needles")
    if number > len(NAMES):
        raise ConfigError(f"--option needles={draw.options['needles']} is not known", valid=f"needles=1..{len(NAMES)}")
    used: set[str] = set()
    codes = [draw.fresh_number(draw.int_option("digits"), used) for _ in range(number)]
    inserts = []
    for name, code, depth in zip(NAMES, codes, spread(number, draw.depth), strict=False):
        text = f"The code of the {name} box is {code}."
        inserts.append(Insert(f" {text}", depth, (1, 1 + len(text)), after="sentence or word"))
    first = inserts[0]
    inserts.sort(key=lambda insert: insert.depth)
    asked = ", ".join(NAMES[:number])
    recipe = Recipe(
        INTRO.rstrip(" "), tuple(inserts), f"\n\nWhat are the codes of these boxes: {asked}? The codes are "
    )
    return Question(recipe, ", ".join(codes), tuple(codes), asked=inserts.index(first))


TASK = Task(
    name="multi_needle",
    scorers=("string_match_all", "contains"),
    max_new_tokens=128,
    validate=validate,
    locate=locate,
    generator=Generator(question, answer_budget=128, options=OPTIONS),
)
