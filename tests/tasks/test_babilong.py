"""babilong: worlds that a plain replay of their sentences confirms, facts at their depths, and the published layout."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infini_eval.api import registry
from infini_eval.data.reading import load_data
from infini_eval.errors import ConfigError, DataError
from infini_eval.tasks.babilong import KINDS, MOST_FACTS, spread, story
from support.small_runs import answered, made, rows, sample_of, tokenizer

GO = "went to|moved to|travelled to|journeyed to|went back to"
TAKE = "took|got|grabbed|picked up"
LEAVE = "dropped|left|discarded|put down"


def replay(facts: list[str], question: str) -> str | None:
    """The answer by reading sentence after sentence; None where these do not say it."""
    at: dict[str, str] = {}
    has: dict[str, str] = {}
    been: dict[str, list[str]] = {}
    gifts: list[tuple[str, str, str]] = []
    sides: list[tuple[str, str, str]] = []

    def note(thing: str, place: str | None) -> None:
        if place and been.setdefault(thing, [])[-1:] != [place]:
            been[thing].append(place)

    for fact in facts:
        if found := re.fullmatch(rf"(\w+) (?:{GO}) the (\w+)\.", fact):
            at[found[1]] = found[2]
            for thing, holder in has.items():
                if holder == found[1]:
                    note(thing, found[2])
        elif found := re.fullmatch(rf"(\w+) (?:{TAKE}) the (\w+)(?: there)?\.", fact):
            has[found[2]] = found[1]
            note(found[2], at.get(found[1]))
        elif found := re.fullmatch(rf"(\w+) (?:{LEAVE}) the (\w+)(?: there)?\.", fact):
            has.pop(found[2], None)
        elif found := re.fullmatch(r"(\w+) (?:gave|handed|passed) the (\w+) to (\w+)\.", fact):
            has[found[2]] = found[3]
            gifts.append((found[1], found[2], found[3]))
        else:
            found = re.fullmatch(r"The (\w+) is (\w+) of the (\w+)\.", fact)
            sides.append((found[1], found[2], found[3]))
    if found := re.fullmatch(r"Where is the (\w+)\?", question):
        return been.get(found[1], [None])[-1]
    if found := re.fullmatch(r"Where is (\w+)\?", question):
        return at.get(found[1])
    if found := re.fullmatch(r"Where was the (\w+) before the (\w+)\?", question):
        places = been[found[1]]
        return places[places.index(found[2]) - 1] if places.index(found[2]) else None
    if found := re.fullmatch(r"What is (\w+) of the (\w+)\?", question):
        return next((a for a, side, b in sides if (side, b) == (found[1], found[2])), None)
    if found := re.fullmatch(r"What is the (\w+) (\w+) of\?", question):
        return next((b for a, side, b in sides if (a, side) == (found[1], found[2])), None)
    if found := re.fullmatch(r"What did (\w+) give to (\w+)\?", question):
        matching = {thing for a, thing, b in gifts if (a, b) == (found[1], found[2])}
    elif found := re.fullmatch(r"Who gave the (\w+)(?: to (\w+))?\?", question):
        matching = {a for a, thing, b in gifts if thing == found[1] and found[2] in (None, b)}
    elif found := re.fullmatch(r"Who did (\w+) give the (\w+) to\?", question):
        matching = {b for a, thing, b in gifts if (a, thing) == (found[1], found[2])}
    else:
        found = re.fullmatch(r"Who received the (\w+)\?", question)
        matching = {b for _, thing, b in gifts if thing == found[1]}
    return matching.pop() if len(matching) == 1 else None


@pytest.mark.parametrize("name", KINDS)
def test_answers_follow_from_the_facts_and_from_the_supporting_ones_alone(name: str) -> None:
    seen = set()
    for seed in range(300):
        told = story(name, random.Random(seed), KINDS[name].facts)
        asked = told.asked
        assert replay(list(told.facts), asked.question) == asked.answer, (seed, told)
        supporting = [told.facts[number] for number in asked.facts]
        assert list(asked.facts) == sorted(set(asked.facts))
        assert replay(supporting, asked.question) == asked.answer, (seed, told)
        assert len(told.facts) == (KINDS[name].facts or 2) == len(set(told.facts))
        assert asked.answer in KINDS[name].labels and asked.answer not in asked.question
        seen.add(asked.answer)
    assert seen == set(KINDS[name].labels)


def test_things_are_handled_only_where_they_are() -> None:
    for seed in range(200):
        at: dict[str, str] = {}
        lies: dict[str, str] = {}
        has: dict[str, str] = {}
        for fact in story("babilong_qa3", random.Random(seed), 40).facts:
            person, thing = fact.split()[0], fact.removesuffix(" there.").rstrip(".").split()[-1]
            if re.search(rf" (?:{GO}) ", fact):
                at[person] = thing
            elif re.search(rf" (?:{TAKE}) ", fact):
                assert thing not in has and lies.pop(thing, at[person]) == at[person]
                has[thing] = person
            else:
                assert has.pop(thing) == person
                lies[thing] = at[person]


@pytest.mark.parametrize("name", KINDS)
def test_the_last_supporting_fact_stands_at_the_depth(name: str) -> None:
    found = rows(name, 4_096, depths=(0, 50, 100))
    for row in found:
        used = json.loads(row["supporting"])
        assert used[-1][1] == row["depth_percent"] and json.loads(row["needles"])[0] == used[-1][0]
        assert row["real_depth"] == pytest.approx(row["depth_percent"], abs=2)
        places = [row["prompt"].index(fact) for fact, _ in used]
        assert places == sorted(places) and row["token_count"] == 4_096 == tokenizer().count(row["prompt"])
    assert registry.task(name).validate([sample_of(row) for row in found]) == []


def test_depths_of_the_other_facts() -> None:
    assert spread(5, 2, 60) == [0, 30, 60, pytest.approx(60 + 40 / 3), pytest.approx(60 + 80 / 3)]
    assert spread(3, 2, 0) == [0, 0, 0] and spread(3, 0, 100) == [100, 100, 100]


def test_a_haystack_may_name_the_places(tmp_path: Path) -> None:
    text = "The kitchen was near the garden, and the office behind the hallway. A bathroom had no bedroom beside it. "
    (tmp_path / "rooms.txt").write_text(" ".join(f"{text}Room {i} was empty." for i in range(900)))
    found = rows("babilong_qa1", 1_024, depths=(50,), haystack=str(tmp_path / "rooms.txt"))
    assert all(row["prompt"].count(row["answer"]) > 1 for row in found)


def test_too_few_and_too_many_facts() -> None:
    with pytest.raises(ConfigError, match="had no question for babilong_qa3"):
        rows("babilong_qa3", depths=(50,), options={"facts": "2"})
    with pytest.raises(ConfigError, match=f"facts=1..{MOST_FACTS}"):
        rows("babilong_qa2", depths=(50,), options={"facts": "61"})
    with pytest.raises(ConfigError, match="has no option 'facts'"):
        rows("babilong_qa4", depths=(50,), options={"facts": "3"})
    assert len(json.loads(rows("babilong_qa2", 4_096, depths=(50,), options={"facts": "60"})[0]["needles"])) == 60


def test_the_published_layout_is_read_and_asked(tmp_path: Path) -> None:
    held = {
        "input": ["A long tale. Mary went to the office. It ends."],
        "question": ["Where is Mary? "],
        "target": ["office"],
    }
    pq.write_table(pa.table(held), tmp_path / "4k.parquet")
    task = registry.task("babilong_qa1")
    data = load_data(task, tmp_path / "4k.parquet")
    (sample,) = data.samples
    assert sample.prompt.endswith("Question: Where is Mary?\nAnswer: ") and "A long tale. Mary" in sample.prompt
    assert any("without the published instructions" in note for note in data.notes)
    (record,) = answered("babilong_qa1", tmp_path / "4k.parquet", tmp_path / "run")
    assert record["correct"] == 1.0 and record["extracted"] == "office"
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match="no column input, question, target"):
        load_data(task, tmp_path / "x.parquet")


def test_the_commands(tmp_path: Path) -> None:
    data = made("babilong_qa2", tmp_path, 1_024, "--depths", "0,100")
    assert [record["correct"] for record in answered("babilong_qa2", data, tmp_path / "run")] == [1.0, 1.0]


@pytest.mark.parametrize(
    "place", [{"needle_segment": 1}, {"boundary": "straddle"}, {"needle_segment": 2, "boundary": "after"}]
)
def test_the_last_supporting_fact_obeys_the_segments(place: dict[str, int | str]) -> None:
    for row in rows("babilong_qa2", 4_096, depths=(50,), num_prompts=3, segment_length=1_024, **place):
        first, last = row["needle_token_start"], row["needle_token_end"] - 1
        assert (first // 1_024 != last // 1_024) == (place.get("boundary") == "straddle")
        assert last // 1_024 == place.get("needle_segment", last // 1_024)
        assert json.loads(row["needles"])[0] == json.loads(row["supporting"])[-1][0]
        assert row["prompt"].index(json.loads(row["supporting"])[0][0]) < row["prompt"].index(
            json.loads(row["needles"])[0]
        )
