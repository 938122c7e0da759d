"""mrcr: a long chat in which the same piece of writing is asked for several times; one of them is to be repeated.

The form is that of multi-round co-reference resolution (Vodrahalli et al. 2024, arXiv 2409.12640) as the data set openai/mrcr
(licence MIT) has it, whose files are read as they are; the chats made here, their texts and their wording are ours.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from string import ascii_letters, digits
from typing import Any

from infini_eval.api.task import DataFinding, Generator, LoadedData, Question, RowInputs, Span, Task
from infini_eval.data.columns import MESSAGES, read_chat, transcript
from infini_eval.data.english import NOUNS, PLURALS, sentences
from infini_eval.data.passkey import duplicates, findings
from infini_eval.errors import ConfigError
from infini_eval.records import Sample
from infini_eval.tasks._fitting import filling, largest_that_fits, no_exact_prompt
from infini_eval.tasks._needles import validate as validate_needles
from infini_eval.tasks._published import Layout, Row, text_of
from infini_eval.tasks._published import load as load_published

NEEDLES = ("2", "4", "8")
FORMS = ("poem", "letter", "speech", "fairy tale", "news report", "riddle", "song", "diary entry", "review", "sermon")
ORDINALS = ("1st", "2nd", "3rd", "4th", "5th", "6th", "7th", "8th")
CODE = ascii_letters + digits
CODE_LENGTH = 10
SHORTEST, LONGEST = 2, 5  # sentences of a text
FEWER_TEXTS = 3  # that may go so that the length comes out
STEP = 5  # percent: depths that are measured in published chats are labelled by the nearest multiple
REQUEST = "Write a {form} about {topic}."
ASKED = (
    "Above you wrote {needles} times a {form} about {topic}. Repeat the {ordinal} of them word for word. Begin your answer with "
    "{code} and put the text directly behind it, without a space. Write nothing else."
)
NOTE = "mrcr: chats and wording are ours, so scores are not comparable with those on the published files"

Turns = list[tuple[str, str]]


@dataclass(frozen=True)
class _Ask:
    """What is asked for several times, how often, and which of the texts is wanted (from 0)."""

    form: str
    topic: str
    needles: int
    wanted: int
    code: str

    @property
    def request(self) -> str:
        return REQUEST.format(form=self.form, topic=self.topic)

    @property
    def question(self) -> str:
        return ASKED.format(
            needles=self.needles, form=self.form, topic=self.topic, ordinal=ORDINALS[self.wanted], code=self.code
        )


class _Texts:
    """Texts by number, each of other sentences than all others, and the requests that other texts than the asked ones have."""

    def __init__(self, rng: random.Random, ask: _Ask) -> None:
        self._seed, self._order, self._ask = rng.getrandbits(32), rng.getrandbits(64), ask
        self._topics = [*PLURALS, *(f"a {noun}" for noun in NOUNS if noun[0] not in "aeiou")]
        self._held: list[tuple[str, str]] = []

    def text(self, number: int) -> str:
        size = random.Random(f"{self._order}/size/{number}").randint(SHORTEST, LONGEST)
        return " ".join(sentences(self._seed, number * LONGEST, size))

    def others(self, number: int, first: int) -> list[tuple[str, str]]:
        """The first `number` requests with their texts, which are numbered from `first` on."""
        while len(self._held) < number:
            rng = random.Random(f"{self._order}/request/{len(self._held)}")
            topic = self._ask.topic if rng.random() < 0.25 else rng.choice(self._topics)
            form = self._ask.form if rng.random() < 0.25 else rng.choice(FORMS)
            if (form, topic) == (self._ask.form, self._ask.topic):
                form = FORMS[(FORMS.index(form) + 1) % len(FORMS)]
            self._held.append((REQUEST.format(form=form, topic=topic), self.text(first + len(self._held))))
        return self._held[:number]


def question(draw: RowInputs) -> Question:
    """As many turns as fit, the wanted text at its depth; the last other text is cut so that the length is exact."""
    ask = _draw_ask(draw)
    texts = _Texts(draw.rng, ask)
    asked = [texts.text(number) for number in range(ask.needles)]
    spare = " ".join(sentences(draw.rng.getrandbits(32), 0, 2 * LONGEST)).split(" ")

    def turns(number: int, last: str = "") -> Turns:
        others = texts.others(number, first=ask.needles)
        return _chat([*others[:-1], (others[-1][0], last)], asked, ask, draw.depth)

    def made(number: int, last: str = "") -> str:
        return transcript(turns(number, last))

    fits = largest_that_fits(lambda n: draw.tokenizer.count(made(n)), draw.target, smallest=1)
    for number in range(fits, max(1, fits - FEWER_TEXTS) - 1, -1):
        last = filling(partial(made, number), spare, draw.target, draw.tokenizer)
        if last is not None:
            return _asked(turns(number, last), asked, ask)
    raise no_exact_prompt(draw.target, draw.tokenizer)


def _draw_ask(draw: RowInputs) -> _Ask:
    if draw.options["needles"] not in NEEDLES:
        raise ConfigError(f"--option needles={draw.options['needles']} is not known", valid="needles=2, 4 or 8")
    needles = int(draw.options["needles"])
    code = "".join(draw.rng.choices(CODE, k=CODE_LENGTH))
    return _Ask(draw.rng.choice(FORMS), draw.rng.choice(PLURALS), needles, draw.rng.randrange(needles), code)


def _chat(others: Sequence[tuple[str, str]], asked: Sequence[str], ask: _Ask, depth: float) -> Turns:
    """The wanted text behind `depth` percent of the others, those before it evenly from the start on, those behind to the end."""
    wanted = depth / 100 * len(others)
    before, behind = ask.wanted + 1, ask.needles - ask.wanted
    places = [wanted * (i + 1) / before for i in range(ask.wanted)] + [wanted]
    places += [wanted + (len(others) - wanted) * i / behind for i in range(1, behind)]
    pairs = [(float(i), 1, request, text) for i, (request, text) in enumerate(others)]
    pairs += [(round(place), 0, ask.request, text) for place, text in zip(places, asked, strict=True)]
    turns: Turns = []
    for _, _, request, text in sorted(pairs, key=lambda pair: pair[:2]):
        turns += [("user", request), ("assistant", text)]
    return [*turns, ("user", ask.question)]


def _asked(turns: Turns, asked: Sequence[str], ask: _Ask) -> Question:
    """The question with the places of the texts that were asked for."""
    text = transcript(turns)
    starts = [text.index(piece) for piece in asked]
    needles = tuple((start, start + len(piece)) for start, piece in zip(starts, asked, strict=True))
    wanted = next(i for i, turn in enumerate(turns) if turn[1] == asked[ask.wanted])
    columns: dict[str, Any] = {
        "haystack": "chat",
        "random_string_to_prepend": ask.code,
        "n_needles": ask.needles,
        "desired_msg_index": wanted - 1,
        "total_messages": len(turns),
        MESSAGES: json.dumps(turns),
    }
    answer = ask.code + asked[ask.wanted]
    context = (0, text.rindex(ask.question))
    return Question(None, answer, text=text, asked=ask.wanted, needles=needles, context=context, columns=columns)


def load(path: str, **filters: Any) -> LoadedData:
    """Rows made here, or those of openai/mrcr."""
    return load_published(path, LAYOUT, filters)


def _published(row: Row, number: int) -> Sample:
    chat = read_chat(row["prompt"])
    if not chat or chat[-1][0] != "user":
        raise ValueError("the prompt is no chat that ends with a question: messages of role and content, as JSON")
    answer, code = text_of(row, "answer"), text_of(row, "random_string_to_prepend")
    prompt = transcript(chat)
    place = prompt.find(answer.removeprefix(code))
    depth = 100 * max(0, place) / len(prompt)
    columns: Mapping[str, Any] = {name: value for name, value in row.items() if name != "prompt"}
    label = float(STEP * round(depth / STEP))
    columns = {**columns, "id": str(number), "depth_percent": label, "real_depth": round(depth, 4)}
    return Sample(str(number), prompt, answer, label, columns=columns, turns=tuple(chat))


LAYOUT = Layout(
    columns=("prompt", "answer", "random_string_to_prepend"),
    sample=_published,
    source="hf download --repo-type dataset openai/mrcr",
)


def locate(sample: Sample) -> Span | None:
    """The text that is to be repeated."""
    wanted = sample.answer.removeprefix(str(sample.columns.get("random_string_to_prepend", "")))
    start = sample.prompt.find(wanted)
    return (start, start + len(wanted)) if wanted and start >= 0 else None


def validate(samples: Sequence[Sample]) -> list[DataFinding]:
    """Texts that are missing or stand there more than once, and ids that repeat."""
    if all("needles" in sample.columns for sample in samples):
        return validate_needles(samples)
    missing = [sample.id for sample in samples if locate(sample) is None]
    return findings({"missing_needle": missing, "duplicate_id": duplicates(sample.id for sample in samples)})


TASK = Task(
    name="mrcr",
    scorers=("prefixed_ratio",),
    max_new_tokens=1024,
    validate=validate,
    locate=locate,
    load=load,
    generator=Generator(
        question,
        answer_budget=1024,
        needs_haystack=False,
        options={"needles": "2"},
        notes=(NOTE,),
        depths="0:100:25",
    ),
)
