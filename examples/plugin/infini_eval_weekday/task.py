"""weekday: on which day of the week does the courier come? One sentence in a long text says so."""

from infini_eval.api import Generator, Insert, Question, Recipe, RowInputs, Sample, Task

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")
NEEDLE = "The courier comes on {day}."


def question(row: RowInputs) -> Question:
    """One row: the needle at the depth that is asked for, the question at the end."""
    day = row.rng.choice(DAYS)
    needle = " " + NEEDLE.format(day=day)
    insert = Insert(needle, row.depth, (1, len(needle)), after="sentence")
    return Question(Recipe("", (insert,), "\n\nOn which day does the courier come? Answer:"), day)


def locate(sample: Sample) -> tuple[int, int] | None:
    """The characters of the needle, for its place among the tokens and segments."""
    needle = NEEDLE.format(day=sample.answer)
    start = sample.prompt.find(needle)
    return (start, start + len(needle)) if start >= 0 else None


WEEKDAY = Task(
    name="weekday",
    scorers=("first_word", "contains"),
    max_new_tokens=8,
    locate=locate,
    generator=Generator(question, forbidden_text="The courier comes"),
)
