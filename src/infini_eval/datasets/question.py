"""What a task hands to the generator: a question with its answer, for one row."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from infini_eval.datasets.compose import Recipe, Span
from infini_eval.datasets.tokenizer import Tokenizer
from infini_eval.errors import ConfigError


@dataclass(frozen=True)
class Draw:
    """What one row is made from. `key` and `shot_keys` occur nowhere else in the data set; `rng` is the row's own.

    `target`: the prompt's tokens; `context_length`: the length asked for; `forbidden`: numbers that stand in the
    haystack; `options`: the task's own settings; `number`: the row's number, from 0, among those of its length.
    """

    depth: float
    key: str
    shot_keys: tuple[str, ...]
    rng: random.Random
    target: int
    tokenizer: Tokenizer
    context_length: int = 0
    forbidden: frozenset[str] = frozenset()
    options: Mapping[str, str] = field(default_factory=dict)
    number: int = 0

    def whole(self, name: str) -> int:
        """An option that is a whole number of at least 1."""
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


MakeQuestion = Callable[[Draw], Question]


@dataclass(frozen=True)
class Generator:
    """How a task makes data. `haystack` is its usual source; `answer_budget` the tokens kept free for an answer.

    `forbidden_text` must not stand in a haystack. `numeric` answers are stored as int64. `options`: names and
    defaults of the task's own settings; those in `files` name files. `notes` are printed with every generation
    (comparability, say). `depths`: the usual --depths. A task that makes finished texts does not need a haystack
    (`needs_haystack`); `exact`: its prompts have exactly the tokens asked for all the same.
    """

    question: MakeQuestion
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
