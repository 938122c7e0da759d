"""Every task: its data are exact, hold what is asked for, and are found, checked and scored by its own rules."""

from __future__ import annotations

import json
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import pytest

from infini_eval.api import registry
from infini_eval.data.config import GenerateConfig
from infini_eval.data.english import word_lists
from infini_eval.data.generate import generate
from infini_eval.data.passkey import token_span
from infini_eval.data.reading import load_data
from infini_eval.data.tokenizer import Tokenizer, load_tokenizer
from infini_eval.data.write import write_parquet
from infini_eval.errors import ConfigError, DataError
from infini_eval.records import Sample

pytest.importorskip("wonderwords")

TOKENIZER = Path(__file__).resolve().parents[2] / "checkpoints" / "infini-demo" / "tokenizer"
NEED_FILES = ("ruler_qa", "ruler_qa_1", "ruler_qa_2")
TASKS = [n for n in registry.names("tasks") if registry.load("tasks", n).generator and n not in NEED_FILES]
LISTS = ("ruler_cwe", "ruler_fwe")
LENGTH = 8_192


@lru_cache(maxsize=1)
def tokenizer() -> Tokenizer:
    return load_tokenizer(TOKENIZER)


@cache
def rows_of(task: str, **settings: Any) -> list[dict[str, Any]]:
    generator = registry.load("tasks", task).generator
    options, length = settings.pop("options", ()), settings.pop("length", LENGTH)
    config = GenerateConfig(
        context_lengths=(length,),
        depths=(0, 60, 100),
        num_prompts=2,
        task=task,
        options=dict(options),
        **settings,
    )
    return list(generate(config, tokenizer(), generator)[0])


def samples(rows: list[dict[str, Any]]) -> list[Sample]:
    return [
        Sample(
            r["id"],
            r["prompt"],
            str(r["answer"]),
            r["depth_percent"],
            columns={k: v for k, v in r.items() if k != "prompt"},
        )
        for r in rows
    ]


@pytest.mark.parametrize("task", TASKS)
def test_lengths_and_answers(task: str) -> None:
    generator = registry.load("tasks", task).generator
    target = LENGTH - (generator.answer_budget if generator.length_includes_answer else 0)
    for row in rows_of(task):
        tokens = tokenizer().count(row["prompt"])
        assert tokens == row["token_count"]
        assert target * 0.98 <= tokens <= target if task in LISTS else tokens == target
        for output in json.loads(row.get("outputs", "[]")) or [str(row["answer"])]:
            output = output.removeprefix(row.get("random_string_to_prepend", ""))
            assert output in row["prompt"] or output.startswith("eat a sandwich")


@pytest.mark.parametrize("task", TASKS)
def test_needles_are_found_checked_and_scored(task: str) -> None:
    made = registry.load("tasks", task)
    assert made.name == task
    assert made.validate(samples(rows_of(task))) == []
    for sample in samples(rows_of(task)):
        span = made.locate(sample)
        if task in LISTS:
            assert span is None
        else:
            _, offsets = tokenizer().encode_with_offsets(sample.prompt)
            assert token_span(span, offsets) == (
                sample.columns["needle_token_start"],
                sample.columns["needle_token_end"],
            )
        for name in made.scorers:
            score = registry.load("scorers", name)
            assert score(f"{sample.answer}", sample).value == 1.0
            assert score("no idea", sample).value == 0.0


@pytest.mark.parametrize("task", [task for task in TASKS if task.startswith("ruler_niah")])
def test_rulers_shapes(task: str) -> None:
    keys, values = {"multikey_1": (4, 1), "multivalue": (1, 4), "multiquery": (4, 1)}.get(
        task.removeprefix("ruler_niah_"), (1, 1)
    )
    for row in rows_of(task):
        assert len(json.loads(row["needles"])) == keys * values
        assert len(json.loads(row["outputs"])) == (4 if task.endswith(("value", "query")) else 1)
        assert json.loads(row["outputs"])[0] in json.loads(row["needles"])[0]
        if task.startswith("ruler_niah_multikey_") and task != "ruler_niah_multikey_1":
            assert row["prompt"].count("One of the special magic") > 30
        if len(json.loads(row["outputs"])) == 1:
            assert row["real_depth"] == pytest.approx(row["depth_percent"], abs=3)


def test_niah_as_the_llama_4_document_has_it() -> None:
    words = (("needle", "The code is {key}"), ("question", "Which code?"), ("expected", "{key}"))
    row = rows_of("niah", options=words)[3]
    assert row["prompt"].startswith("<document>\n")
    assert f"\n--- NEEDLE START ---\nThe code is {row['answer']}.\n--- NEEDLE END ---\n" in row["prompt"]
    assert row["prompt"].endswith("</document>\n\nWhich code?")
    assert not rows_of("niah", options=(("wrap", "none"),))[0]["prompt"].startswith("<document>")


def test_ones_own_needle_brings_its_question_and_is_the_answer() -> None:
    own = (("needle", "The cat of the house is called Mavis."), ("question", "What is the cat called?"))
    for task in ("needle", "niah"):
        (sample, *_) = samples(rows_of(task, options=own))
        assert sample.answer == "The cat of the house is called Mavis"
        contains = registry.load("scorers", "contains")
        assert contains("Well: the CAT of the house is called mavis, I think.", sample).value == 1.0
        assert contains("Mavis", sample).value == 0.0
        with pytest.raises(ConfigError, match="needs a question of its own"):
            rows_of(task, options=own[:1])


def test_an_answer_that_stands_elsewhere_is_refused() -> None:
    own = (("needle", "The cat is called grass."), ("question", "What is the cat called?"), ("expected", "Grass"))
    with pytest.raises(DataError, match="'Grass' stands in the prompt outside the needle"):
        rows_of("niah", options=own, haystack="filler")
    leaking = (("needle", "The cat is Mavis."), ("question", "Is the cat Mavis?"), ("expected", "Mavis"))
    with pytest.raises(DataError, match="or the question"):
        rows_of("niah", options=leaking)


def test_the_control_has_no_context() -> None:
    rows = rows_of("passkey", control="no-context")
    assert all(row["token_count"] < 80 and str(row["answer"]) not in row["prompt"] for row in rows)
    assert all(row["prompt"].endswith("What is the pass key? The pass key is ") for row in rows)
    assert registry.load("tasks", "passkey").validate(samples(rows)) == []
    rows = rows_of("ruler_niah_single_2", control="no-context")
    assert all(row["answer"] not in row["prompt"] for row in rows)


def test_needles_of_data_without_the_column() -> None:
    task = registry.load("tasks", "needle")
    found = Sample("a", "x eat a sandwich y. What? ", "eat a sandwich", 50.0)
    assert task.locate(found) == (2, 16) and task.validate([found]) == []
    assert [f.kind for f in task.validate([Sample("a", "x y", "eat", 50.0)])] == ["missing_needle"]


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("niah", (("colour", "red"),)),
        ("niah", (("markers", "maybe"),)),
        ("multi_needle", (("needles", "11"),)),
        ("multi_needle", (("digits", "x"),)),
        ("ruler_fwe", (("alpha", "-1"),)),
        ("ruler_cwe", (("example", "perhaps"),)),
        ("ruler_vt", (("hops", "0"),)),
    ],
)
def test_options_that_are_not(task: str, options: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises(ConfigError, match=options[0][0]):
        rows_of(task, options=options)


def test_rows_come_back_from_parquet(tmp_path: Path) -> None:
    task = registry.load("tasks", "multi_needle")
    write_parquet(rows_of("multi_needle"), tmp_path / "x.parquet", {})
    data = load_data(task, tmp_path / "x.parquet")
    assert data.samples == samples_loaded(rows_of("multi_needle")) and task.validate(data.samples) == []


def samples_loaded(rows: list[dict[str, Any]]) -> list[Sample]:
    return [
        Sample(
            r["id"],
            r["prompt"],
            r["answer"],
            float(r["depth_percent"]),
            r["context_length"],
            r["num_shots"],
            r["num_digits"],
            {k: v for k, v in r.items() if k != "prompt"},
        )
        for r in rows
    ]


def test_words() -> None:
    adjectives, nouns = word_lists()
    assert len(adjectives) > 500 and len(nouns) > 1_000
    assert all(word.isalpha() for word in adjectives + nouns)
