"""niah: a needle in a document, wrapped and marked as the long-context tests of Llama 4 have it."""

from __future__ import annotations

from infini_eval.api.task import Generator, Insert, Question, Recipe, RowInputs, Task
from infini_eval.errors import ConfigError
from infini_eval.tasks._needles import locate, own_words, validate

START, END = "--- NEEDLE START ---", "--- NEEDLE END ---"
OPTIONS = {
    "needle": "The secret code of the northern archive is amber-falcon-{key}.",
    "question": "What is the secret code of the northern archive?",
    "expected": "amber-falcon-{key}",
    "markers": "yes",
    "wrap": "document",
}


def question(draw: RowInputs) -> Question:
    """A document with one needle, then the question; {key} in needle and answer is the row's own number.

    Options: needle, question, expected, markers=yes|no (the needle between two marker lines), wrap=document|none.
    """
    options = draw.options
    _check(options["markers"], "markers", ("yes", "no"))
    _check(options["wrap"], "wrap", ("document", "none"))
    needle, asked, expected = (text.replace("{key}", draw.key) for text in own_words(options, OPTIONS))
    marked = f"\n{START}\n{needle}\n{END}\n" if options["markers"] == "yes" else f" {needle}"
    begin = marked.index(needle)
    insert = Insert(marked, draw.depth, (begin, begin + len(needle)), after="sentence or word")
    opening, closing = ("<document>\n", "\n</document>") if options["wrap"] == "document" else ("", "")
    recipe = Recipe(opening.rstrip(" "), (insert,), f"{closing}\n\n{asked}")
    return Question(recipe, expected)


def _check(value: str, name: str, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise ConfigError(f"--option {name}={value} is not known", valid=" or ".join(f"{name}={v}" for v in valid))


TASK = Task(
    name="niah",
    scorers=("contains", "exact_match"),
    max_new_tokens=128,
    validate=validate,
    locate=locate,
    generator=Generator(question, answer_budget=128, options=OPTIONS),
)
