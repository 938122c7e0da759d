"""needle: the wording of the simple needle data set, for any needle, question and answer."""

from __future__ import annotations

from infini_eval.api.task import Generator, Insert, Question, Recipe, RowInputs, Task
from infini_eval.datasets.passkey_text import INTRO_SIMPLE
from infini_eval.tasks._needles import locate, own_words, validate

OPTIONS = {
    "needle": "The best thing to do in San Francisco is to eat a sandwich and sit in Dolores Park on a sunny day.",
    "question": "What is the best thing to do in San Francisco?",
    "expected": "eat a sandwich and sit in Dolores Park",
}


def question(draw: RowInputs) -> Question:
    """Intro, the haystack with one needle, the question."""
    needle, asked, expected = own_words(draw.options, OPTIONS)
    insert = Insert(f" {needle}", draw.depth, (1, 1 + len(needle)), after="sentence or word")
    recipe = Recipe(INTRO_SIMPLE, (insert,), f" \n\n{asked} ")
    return Question(recipe, expected)


TASK = Task(
    name="needle",
    scorers=("contains", "exact_match"),
    max_new_tokens=40,
    validate=validate,
    locate=locate,
    generator=Generator(question, answer_budget=40, options=OPTIONS),
)
