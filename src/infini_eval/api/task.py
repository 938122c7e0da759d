"""Task: what is asked. How its data are read, checked and made, where its needle stands, and who judges its answers."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from infini_eval.errors import ConfigError
from infini_eval.records import Sample

Span = tuple[int, int]  # half open: of characters or of tokens, as the place says


class PromptTokenizer(Protocol):
    """What the author of a question may ask of the tokenizer that the data are made for."""

    name: str

    def __hash__(self) -> int: ...

    def count(self, text: str, *, add_special_tokens: bool = True) -> int:
        """Tokens of a text."""


@dataclass(frozen=True)
class Insert:
    """A text put into the haystack at a depth: the share, in percent, of the haystack's tokens before it.

    `text` begins where the word or sentence before it ends, and ends without the space that follows. `needle` is the
    half-open character span in `text` that counts as the needle. `after` says where the haystack is cut for it;
    "sentence or word": after a sentence, or after a word where no sentence ends near the depth (5 points).
    """

    text: str
    depth: float
    needle: Span
    after: Literal["word", "sentence", "sentence or word"] = "word"


@dataclass(frozen=True)
class Recipe:
    """A prompt around its haystack: `prefix` (no space at its end), inserts in order of depth, `suffix`."""

    prefix: str
    inserts: tuple[Insert, ...]
    suffix: str


@dataclass(frozen=True)
class RowInputs:
    """What one row of a data set is made from. `key` and `shot_keys` occur nowhere else in it; `rng` is the row's own.

    `target`: the prompt's tokens; `context_length`: the length asked for; `forbidden`: numbers that stand in the
    haystack; `options`: the task's own settings; `number`: the row's number, from 0, among those of its length.
    """

    depth: float
    key: str
    shot_keys: tuple[str, ...]
    rng: random.Random
    target: int
    tokenizer: PromptTokenizer
    context_length: int = 0
    forbidden: frozenset[str] = frozenset()
    options: Mapping[str, str] = field(default_factory=dict)
    number: int = 0

    def int_option(self, name: str) -> int:
        """An option that is a whole number of at least 1; ConfigError for anything else."""
        text = self.options[name]
        if not text.isdecimal() or int(text) < 1:
            raise ConfigError(f"--option {name}={text} is not known", valid=f"{name}=1, 2, …")
        return int(text)

    def fresh_number(self, digits: int, used: set[str]) -> str:
        """A number of `digits` digits that is neither in `used` (it is added there) nor in the haystack."""
        while True:
            number = str(self.rng.randrange(10 ** (digits - 1), 10**digits))
            if number not in used and number not in self.forbidden:
                used.add(number)
                return number


@dataclass(frozen=True)
class Question:
    """A prompt to be and its answer: a `recipe` around a haystack, or a finished `text` of at most the target's length.

    `outputs` are the references that the answer must name (RULER's word), [answer] where empty. `columns` are added
    to the row. `asked` is the insert of the recipe that the question asks for (the first such one). A finished text may
    say where its `needles` stand and what its haystack is: `context`, all half-open character spans; and `haystack`, a
    name that prompts share which are made of the same text (empty: the text is this prompt's own).
    """

    recipe: Recipe | None
    answer: str
    outputs: tuple[str, ...] = ()
    text: str | None = None
    asked: int = 0
    columns: Mapping[str, Any] = field(default_factory=dict)
    needles: tuple[Span, ...] = ()
    context: Span = (0, 0)
    haystack: str = ""


@dataclass(frozen=True)
class Generator:
    """How a task makes data. `haystack` is its usual source; `answer_budget` the tokens kept free for an answer.

    `forbidden_text` must not stand in a haystack. `numeric` answers are stored as int64; `common_answers` are ordinary words,
    which may stand in the haystack and the question too. `options`: names and
    defaults of the task's own settings; those in `files` name files. `notes` are printed with every generation
    (comparability, say). `depths`: the usual --depths. A task that makes finished texts does not need a haystack
    (`needs_haystack`); `exact`: its prompts have exactly the tokens asked for all the same.
    """

    question: Callable[[RowInputs], Question]
    haystack: str = "english"
    answer_budget: int = 16
    length_includes_answer: bool = False
    forbidden_text: str | None = None
    numeric: bool = False
    needs_haystack: bool = True
    options: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    depths: str = "0:100:5"
    exact: bool = True
    files: tuple[str, ...] = ()
    common_answers: bool = False


@dataclass(frozen=True)
class DataFinding:
    """One kind of defect of a data set: how many samples have it, the ids of some, and what it means."""

    kind: str
    count: int
    examples: tuple[str, ...]
    message: str

    def __str__(self) -> str:
        more = ", …" if self.count > len(self.examples) else ""
        return f"{self.kind}: {self.count} sample(s): {self.message} (ids: {', '.join(self.examples)}{more})"


@dataclass(frozen=True)
class LoadedData:
    """The samples of a data set, the sha256 of its files (16 digits), where they came from, and what should be said.

    `settings` decide the samples beside the files; they are a part of a run's identity.
    """

    samples: list[Sample]
    fingerprint: str
    source: str
    notes: list[str]
    settings: Mapping[str, Any] = field(default_factory=dict)


def nowhere(sample: Sample) -> Span | None:
    """The place of a needle in tasks that have none."""
    return None


def nothing_wrong(samples: Sequence[Sample]) -> list[DataFinding]:
    """The defects of data that a task does not check."""
    return []


@dataclass(frozen=True)
class Task:
    """One kind of question. A module of `infini_eval.tasks` holds one or several; other packages name theirs as entry points.

    Args:
        name: the task's public name.
        scorers: names of the scorers recorded with every answer, the default judge first.
        max_new_tokens: the answer's usual budget.
        validate: names the defects of a data set.
        locate: the needle's half-open character span in the prompt, None where there is none.
        load: `load(path, *, num_shots, num_digits, context_length, depths)` reads a data set; None reads rows with the
            columns prompt, answer and depth_percent. A task with `options` gets them as one more keyword.
        select: `select(samples, number, seed)` draws samples and says what is short; None draws alike from every cell of
            length and depth.
        generator: makes its data, where they can be made.
        options: names and defaults of the task's own settings (--option NAME=VALUE).
        report: by depths, by questions (answers wait for a judge), or none of its own (a judge's verdicts).
    """

    name: str
    scorers: tuple[str, ...]
    max_new_tokens: int
    validate: Callable[[Sequence[Sample]], list[DataFinding]] = nothing_wrong
    locate: Callable[[Sample], Span | None] = nowhere
    load: Callable[..., LoadedData] | None = None
    generator: Generator | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    select: Callable[[Sequence[Sample], int | None, int], tuple[list[Sample], list[str]]] | None = None
    report: Literal["depths", "questions", "none"] = "depths"

    def with_defaults(self, given: Mapping[str, str]) -> dict[str, str]:
        """All options, the given ones and the defaults; ConfigError for a name that the task does not have."""
        unknown = [name for name in given if name not in self.options]
        if unknown:
            known = ", ".join(f"{name}={value}" for name, value in self.options.items())
            raise ConfigError(f"--option {unknown[0]}: not an option of {self.name}", valid=known or "no options")
        return {**self.options, **given}
