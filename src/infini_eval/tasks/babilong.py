"""babilong_qa1 to babilong_qa5: facts of a small world hidden in a haystack of any length, and a question about that world.

The five forms of question, the words of the worlds and the rule that judges answers are those of BABILong (Kuratov et al.
2024, arXiv 2406.10149) after bAbI (Weston et al. 2015); worlds are simulated here, sentences around the facts are ours.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby, pairwise
from typing import Any

from infini_eval.api.task import DataFinding, Generator, Insert, LoadedData, Question, Recipe, RowInputs, Span, Task
from infini_eval.data.passkey import duplicates, findings
from infini_eval.errors import ConfigError
from infini_eval.records import Sample
from infini_eval.tasks._needles import locate as locate_needle
from infini_eval.tasks._needles import validate as validate_needles
from infini_eval.tasks._published import Layout, Row, text_of
from infini_eval.tasks._published import load as load_published

PLACES = ("bathroom", "bedroom", "garden", "hallway", "kitchen", "office")
THINGS = ("apple", "football", "milk")
PEOPLE = ("Daniel", "John", "Mary", "Sandra")
GIVERS = ("Bill", "Fred", "Jeff", "Mary")  # the people of qa5
GOES = ("went to", "moved to", "travelled to", "journeyed to", "went back to")
TAKES = ("took", "got", "grabbed", "picked up")
LEAVES = ("dropped", "left", "discarded", "put down")
GIVES = ("gave", "handed", "passed")
SIDES = {"north": "south", "south": "north", "east": "west", "west": "east"}
MOST_FACTS = 60  # of one world: no sentence stands there twice
TRIES = 400  # worlds drawn until one has a question
BEFORE = (
    "Somewhere in the following text stand short facts about people, places and things. They happen in the order in which "
    "they stand there. Everything else in the text is beside the point.\n\n"
)
AFTER = "\n\nAnswer from these facts alone, with one word.\nQuestion: {question}\nAnswer: "
NOTE = "babilong: worlds, haystack and wording are ours, so scores are not comparable with published ones"


@dataclass(frozen=True)
class Asked:
    """A question, its one-word answer, and the numbers of the facts that it follows from, in order."""

    question: str
    answer: str
    facts: tuple[int, ...]


@dataclass(frozen=True)
class Story:
    """The facts of a world in order, and a question about it."""

    facts: tuple[str, ...]
    asked: Asked


@dataclass
class _Stay:
    """A thing's time at a place: the facts that brought it there, and the one by which it was first left there."""

    place: str
    came: tuple[int, ...]
    left: tuple[int, ...] = ()


@dataclass
class _Thing:
    """Who has a thing since which fact, and its stays, the present one last."""

    holder: str | None = None
    taken: int = -1
    stays: list[_Stay] = field(default_factory=list)

    @property
    def place(self) -> str | None:
        return self.stays[-1].place if self.stays else None

    def is_at(self, place: str, facts: Sequence[int]) -> None:
        if self.place != place:
            self.stays.append(_Stay(place, tuple(facts)))


@dataclass(frozen=True)
class _Gift:
    fact: int
    giver: str
    thing: str
    taker: str


class World:
    """People who walk between places, and take, leave and give things; every change is one fact, none stands twice.

    A thing is taken, left and given only where its holder is. Nobody's place is known before they have moved.
    """

    def __init__(
        self, rng: random.Random, people: Sequence[str], things: Sequence[str], *, gives: bool = False
    ) -> None:
        self._rng, self._gives = rng, gives
        self.people: dict[str, tuple[str, int] | None] = dict.fromkeys(people)  # place, and the fact that says so
        self.things = {name: _Thing() for name in things}
        self.facts: list[str] = []
        self.gifts: list[_Gift] = []

    def run(self, facts: int) -> World:
        """Let so many facts happen."""
        deeds: list[Callable[[], bool]] = [self._move, self._move, self._take, self._leave]
        deeds = deeds + [self._give] * 3 if self._gives else deeds if self.things else [self._move]
        while len(self.facts) < facts:
            self._rng.choice(deeds)()
        return self

    def _says(self, subject: str, verbs: Sequence[str], rest: Sequence[str]) -> bool:
        """Add a fact in words that no other has; False where there are none left."""
        sentences = [f"{subject} {verb} {end}." for verb in verbs for end in rest]
        fresh = [sentence for sentence in sentences if sentence not in self.facts]
        if fresh:
            self.facts.append(self._rng.choice(fresh))
        return bool(fresh)

    def _move(self) -> bool:
        person = self._rng.choice(list(self.people))
        now = self.people[person]
        others = {at[0] for name, at in self.people.items() if at and name != person}
        towards = sorted(others) if self._gives and others and self._rng.random() < 0.5 else PLACES
        place = self._rng.choice(towards)
        if (now and now[0] == place) or not self._says(person, GOES, [f"the {place}"]):
            return False
        fact = len(self.facts) - 1
        self.people[person] = place, fact
        for thing in self.things.values():
            if thing.holder == person:
                thing.is_at(place, (thing.taken, fact))
        return True

    def _take(self) -> bool:
        person, name = self._rng.choice(list(self.people)), self._rng.choice(list(self.things))
        thing, at = self.things[name], self.people[person]
        if at is None or thing.holder or thing.place not in (None, at[0]):
            return False
        if not self._says(person, TAKES, [f"the {name}", f"the {name} there"]):
            return False
        thing.holder, thing.taken = person, len(self.facts) - 1
        thing.is_at(at[0], (at[1], thing.taken))
        return True

    def _leave(self) -> bool:
        name = self._rng.choice(list(self.things))
        thing = self.things[name]
        if thing.holder is None or not self._says(thing.holder, LEAVES, [f"the {name}", f"the {name} there"]):
            return False
        stay = thing.stays[-1]
        stay.left = stay.left or (len(self.facts) - 1,)
        thing.holder = None
        return True

    def _give(self) -> bool:
        name = self._rng.choice(list(self.things))
        thing, giver = self.things[name], self.things[name].holder
        near = [one for one, at in self.people.items() if at and at[0] == thing.place and one != giver]
        if giver is None or not near:
            return False
        taker = self._rng.choice(near)
        if not self._says(giver, GIVES, [f"the {name} to {taker}"]):
            return False
        thing.holder, thing.taken = taker, len(self.facts) - 1
        self.gifts.append(_Gift(thing.taken, giver, name, taker))
        return True


def _qa1(rng: random.Random, facts: int) -> tuple[list[str], list[Asked]]:
    """Where somebody is: one fact."""
    world = World(rng, PEOPLE, ()).run(facts)
    known = [(name, at) for name, at in world.people.items() if at]
    return world.facts, [Asked(f"Where is {name}?", at[0], (at[1],)) for name, at in known]


def _qa2(rng: random.Random, facts: int) -> tuple[list[str], list[Asked]]:
    """Where a thing is: who has it, and where they are (or were when they left it there)."""
    world = World(rng, PEOPLE, THINGS).run(facts)
    now = [(name, thing.stays[-1]) for name, thing in world.things.items() if thing.stays]
    return world.facts, [Asked(f"Where is the {name}?", stay.place, (*stay.came, *stay.left)) for name, stay in now]


def _qa3(rng: random.Random, facts: int) -> tuple[list[str], list[Asked]]:
    """Where a thing was before it came to a place where it was once only."""
    world = World(rng, PEOPLE, THINGS).run(facts)
    found = []
    for name, thing in world.things.items():
        places = [stay.place for stay in thing.stays]
        for before, then in pairwise(thing.stays):
            if places.count(then.place) == 1:
                used = tuple(sorted({*before.came, *before.left, *then.came}))
                found.append(Asked(f"Where was the {name} before the {then.place}?", before.place, used))
    return world.facts, found


def _qa4(rng: random.Random, facts: int) -> tuple[list[str], list[Asked]]:
    """What lies on one side of a place: two facts about its neighbours, of which one answers."""
    middle, *around = rng.sample(PLACES, 3)
    told, asked = [], []
    for number, (place, side) in enumerate(zip(around, rng.sample(list(SIDES), 2), strict=True)):
        if rng.random() < 0.5:
            told.append(f"The {place} is {side} of the {middle}.")
            asked.append(Asked(f"What is {side} of the {middle}?", place, (number,)))
        else:
            told.append(f"The {middle} is {SIDES[side]} of the {place}.")
            asked.append(Asked(f"What is the {middle} {SIDES[side]} of?", place, (number,)))
    return told, asked


def _qa5(rng: random.Random, facts: int) -> tuple[list[str], list[Asked]]:
    """Who gave what to whom: one fact, of which two parts are named, or the thing alone."""
    world = World(rng, GIVERS, THINGS, gives=True).run(facts)
    found: dict[str, list[Asked]] = {}
    for gift in world.gifts:
        giver, thing, taker = gift.giver, gift.thing, gift.taker
        for question, answer in (
            (f"What did {giver} give to {taker}?", thing),
            (f"Who gave the {thing} to {taker}?", giver),
            (f"Who did {giver} give the {thing} to?", taker),
            (f"Who gave the {thing}?", giver),
            (f"Who received the {thing}?", taker),
        ):
            found.setdefault(question, []).append(Asked(question, answer, (gift.fact,)))
    return world.facts, [asked[0] for asked in found.values() if len(asked) == 1]


@dataclass(frozen=True)
class _Kind:
    """One of the five: how a world with its questions is made, its usual facts (0: always two), and the answers that count."""

    made: Callable[[random.Random, int], tuple[list[str], list[Asked]]]
    facts: int
    labels: tuple[str, ...] = PLACES


KINDS = {
    "babilong_qa1": _Kind(_qa1, 6),
    "babilong_qa2": _Kind(_qa2, 12),
    "babilong_qa3": _Kind(_qa3, 20),
    "babilong_qa4": _Kind(_qa4, 0),
    "babilong_qa5": _Kind(_qa5, 12, (*GIVERS, *THINGS)),
}


def story(name: str, rng: random.Random, facts: int) -> Story:
    """A world of so many facts with a question; ConfigError where so few leave nothing to ask."""
    for _ in range(TRIES):
        told, asked = KINDS[name].made(rng, facts)
        if asked:
            return Story(tuple(told), rng.choice(asked))
    raise ConfigError(
        f"--option facts={facts}: {TRIES} worlds of so few facts had no question for {name}",
        valid=f"{KINDS[name].facts} is usual",
    )


def question(draw: RowInputs, *, name: str) -> Question:
    """The last fact that the answer follows from stands at the row's depth, the others in order before and behind it."""
    facts = draw.int_option("facts") if KINDS[name].facts else 2
    if facts > MOST_FACTS:
        raise ConfigError(f"--option facts={facts} is not known", valid=f"facts=1..{MOST_FACTS}")
    told = story(name, draw.rng, facts)
    last = told.asked.facts[-1]
    depths = spread(len(told.facts), last, draw.depth)
    inserts = tuple(_inserts(told.facts, depths, last))
    recipe = Recipe(BEFORE.rstrip(" "), inserts, AFTER.format(question=told.asked.question))
    asked = next(i for i, insert in enumerate(inserts) if insert.depth == draw.depth)
    used = [[told.facts[number], round(depths[number], 3)] for number in told.asked.facts]
    columns = {
        "question": told.asked.question,
        "labels": json.dumps(KINDS[name].labels),
        "supporting": json.dumps(used),
    }
    return Question(recipe, told.asked.answer, asked=asked, columns=columns)


def spread(number: int, last: int, depth: float) -> list[float]:
    """Depths of a world's facts: fact `last` at `depth`, those before it evenly from 0 on, those behind it evenly to 100."""
    behind = number - last
    return [
        depth * i / last if i < last else depth + (100 - depth) * (i - last) / behind if i > last else depth
        for i in range(number)
    ]


def _inserts(facts: Sequence[str], depths: Sequence[float], asked: int) -> Iterator[Insert]:
    """One insert for each depth; where several facts stand at the asked one's, the needle is that one alone."""
    for depth, group in groupby(range(len(facts)), key=lambda i: depths[i]):
        members = list(group)
        text = " ".join(facts[i] for i in members)
        needle = facts[asked] if asked in members else text
        start = 1 + text.index(needle)
        yield Insert(f" {text}", depth, (start, start + len(needle)), after="sentence or word")


def load(path: str, *, name: str, **filters: Any) -> LoadedData:
    """Rows made here, or those of RMT-team/babilong, whose texts and questions are put into our wording."""
    layout = Layout(
        columns=("input", "question", "target"),
        sample=partial(_published, name=name),
        source="hf download --repo-type dataset RMT-team/babilong",
        note=f"{name}: published worlds and texts in our wording, without the published instructions and worked examples",
    )
    return load_published(path, layout, filters)


def _published(row: Row, number: int, *, name: str) -> Sample:
    asked = text_of(row, "question").strip()
    prompt = f"{BEFORE}{text_of(row, 'input').strip()}{AFTER.format(question=asked)}"
    columns = {"id": str(number), "depth_percent": 0.0, "question": asked, "labels": list(KINDS[name].labels)}
    return Sample(str(number), prompt, text_of(row, "target").strip(), 0.0, columns=columns)


def locate(sample: Sample) -> Span | None:
    """The last fact that the answer follows from; None in published prompts, which do not say it."""
    return locate_needle(sample) if "needles" in sample.columns else None


def validate(samples: Sequence[Sample]) -> list[DataFinding]:
    """Facts that are missing or stand there more than once, and ids that repeat."""
    if all("needles" in sample.columns for sample in samples):
        return validate_needles(samples)
    return findings({"duplicate_id": duplicates(sample.id for sample in samples)})


def _task(name: str, kind: _Kind) -> Task:
    generator = Generator(
        partial(question, name=name),
        options={"facts": str(kind.facts)} if kind.facts else {},
        notes=(NOTE,),
        depths="0:100:25",
        common_answers=True,
    )
    return Task(
        name, ("only_label", "contains"), 16, validate=validate, locate=locate, load=partial(load, name=name),
        generator=generator,
    )  # fmt: skip


TASKS = {name: _task(name, kind) for name, kind in KINDS.items()}
