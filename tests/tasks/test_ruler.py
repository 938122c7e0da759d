"""RULER's list and document tasks are as published: lines, examples, frequencies, documents of both question files."""

from __future__ import annotations

import itertools
import json
import random
import re
from collections import Counter
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import pytest

from infini_eval.api import registry
from infini_eval.data.config import GenerateConfig
from infini_eval.data.english import all_words
from infini_eval.data.generate import generate
from infini_eval.data.sources import FILLER
from infini_eval.data.tokenizer import Tokenizer, load_tokenizer
from infini_eval.errors import ConfigError, DataError, MaterialError
from infini_eval.records import Sample
from infini_eval.tasks import _fitting
from infini_eval.tasks.ruler import SUITE

pytest.importorskip("wonderwords")

TOKENIZER = Path(__file__).resolve().parents[2] / "checkpoints" / "infini-demo" / "tokenizer"
LENGTH = 4_096
NOISE = FILLER.strip()


@lru_cache(maxsize=1)
def tokenizer() -> Tokenizer:
    return load_tokenizer(TOKENIZER)


@cache
def rows_of(task: str, *options: tuple[str, str], length: int = LENGTH, **settings: Any) -> list[dict[str, Any]]:
    generator = registry.load("tasks", task).generator
    config = GenerateConfig(
        context_lengths=(length,),
        depths=settings.pop("depths", (None,)),
        num_prompts=settings.pop("num_prompts", 3),
        task=task,
        options=dict(options),
        **settings,
    )
    return list(generate(config, tokenizer(), generator)[0])


def sample_of(row: dict[str, Any]) -> Sample:
    return Sample(row["id"], row["prompt"], row["answer"], row["depth_percent"], columns=row)


def parts_of(row: dict[str, Any]) -> tuple[str, str]:
    """The worked example and the prompt proper."""
    at = row["prompt"].rindex("Memorize")
    return row["prompt"][:at], row["prompt"][at:]


# ---- the suite


def test_the_suite_is_the_published_thirteen() -> None:
    assert len(SUITE) == len(set(SUITE)) == 13 and set(SUITE) <= set(registry.names("tasks"))
    for name in SUITE:
        task = registry.load("tasks", name)
        assert task.name == name
        assert task.scorers[0] == ("string_match_part" if name.startswith("ruler_qa") else "string_match_all")
        assert task.generator.length_includes_answer and task.generator.answer_budget == task.max_new_tokens


# ---- ruler_vt


def test_each_assignment_has_a_line_of_its_own() -> None:
    for row in rows_of("ruler_vt"):
        for part in parts_of(row):
            lines = part.partition("\n\n")[2].partition("\nQuestion: ")[0].split("\n")
            assigned = [line for line in lines if "VAR" in line]
            assert len(assigned) == 5 and all(
                re.fullmatch(r"VAR [A-Z]+ = (VAR [A-Z]+|\d{5})", each) for each in assigned
            )
            assert {line for line in lines[:-1] if "VAR" not in line} == {NOISE}
            assert lines[-1] == NOISE or set(lines[-1].split()) <= set(NOISE.split())


def test_variable_tracking_can_be_solved_and_its_needles_are_found() -> None:
    task = registry.load("tasks", "ruler_vt")
    rows = rows_of("ruler_vt")
    assert task.validate([sample_of(row) for row in rows]) == []
    for row in rows:
        lines = parts_of(row)[1].split("\n")
        value = row["prompt"].rpartition("assigned the value ")[2].split()[0]
        chain = json.loads(row["outputs"])
        places = [lines.index(f"VAR {chain[0]} = {value}")]
        places += [lines.index(f"VAR {after} = VAR {before}") for before, after in itertools.pairwise(chain)]
        assert places == sorted(places)
        start, end = task.locate(sample_of(row))
        assert row["prompt"][start:end] == f"VAR {chain[0]} = {value}"
        assert row["real_depth"] == pytest.approx(row["depth_percent"], abs=2)
        assert row["token_count"] == LENGTH - 30 == tokenizer().count(row["prompt"])


def test_each_prompt_has_a_new_worked_example_of_the_same_layout() -> None:
    rows = rows_of("ruler_vt")
    examples = [parts_of(row)[0] for row in rows]
    assert (
        len(set(examples)) == len({re.sub(r"[A-Z]{3}\b|\d{5}", "_", example) for example in examples}) + len(rows) - 1
    )
    for row, example in zip(rows, examples, strict=True):
        question, _, given = example.rpartition("they are: ")
        assert tokenizer().count(question) <= 510 and len(given.split()) == 5
        assert re.search(r"VAR (\w+) = \d", example)[1] == given.split()[0]
        assert not set(given.split()) & set(json.loads(row["outputs"]))
        assert example.endswith("\n\n")
    assert all(row["prompt"].count("Question: ") == 1 for row in rows_of("ruler_vt", ("example", "no")))


@pytest.mark.parametrize("letters", [1, 3])
def test_lists_come_out_exactly_with_other_tokenizers(letters: int) -> None:
    class Blocks:
        """Counts a text's blocks of some characters; enough of a tokenizer to fit lists."""

        name = "blocks"

        def count(self, text: str, *, add_special_tokens: bool = True) -> int:
            return sum(-(-len(word) // letters) for word in re.findall(r"\s|\S+", text))

    words = NOISE.split(" ")
    for target in range(200, 230):
        part = _fitting.filling(lambda last: f"{NOISE}\n{last}\nQuestion", words * 9, target, Blocks())  # type: ignore[arg-type]
        assert part is not None and Blocks().count(f"{NOISE}\n{part}\nQuestion") == target


@pytest.mark.parametrize("seed", range(20))
def test_the_largest_that_fits(seed: int) -> None:
    rng = random.Random(seed)
    sizes = list(itertools.accumulate(rng.randrange(1, 30) for _ in range(400)))
    target = rng.randrange(sizes[2], sizes[-2])
    asked: list[int] = []

    def tokens_of(size: int) -> int:
        asked.append(size)
        return sizes[min(size, 399)] + 30 * max(0, size - 399)

    found = _fitting.largest_that_fits(tokens_of, target, smallest=2)
    assert sizes[found] <= target < sizes[found + 1] and len(asked) <= 20
    assert _fitting.largest_that_fits(tokens_of, target, smallest=2, largest=5) == min(found, 5)
    with pytest.raises(DataError, match="the smallest prompt takes"):
        _fitting.largest_that_fits(tokens_of, sizes[2] - 1, smallest=2)


# ---- ruler_cwe, ruler_fwe


def listed_words(row: dict[str, Any], line: int) -> list[str]:
    return row["prompt"].split("\n")[line].split()[1::2]


def test_common_words_are_the_answer() -> None:
    examples = set()
    for row in rows_of("ruler_cwe", length=8_192):
        example, listed = listed_words(row, 1), listed_words(row, 4)
        examples.add(tuple(example))
        assert len(example) == 10 * 10 + 30 * 3 and len(set(example)) == 40
        given = row["prompt"].split("Question: ")[1].rpartition("are:")[2].split("\nBelow")[0].split()[1::2]
        assert set(given) == {word for word, n in Counter(example).items() if n == 10} and len(given) == 10
        times = Counter(listed)
        assert {word for word, n in times.items() if n == 30} == set(json.loads(row["outputs"]))
        assert set(times.values()) == {3, 30} and set(times) <= set(all_words())
    assert len(examples) == 3
    assert all(row["prompt"].count("Question: ") == 1 for row in rows_of("ruler_cwe", ("example", "no"), length=8_192))
    with pytest.raises(DataError, match=r"smallest prompt takes(.|\n)*common_times=6"):
        rows_of("ruler_cwe")  # 300 words of about seven tokens of this tokenizer and the example are more than 4k


def test_common_words_of_short_contexts() -> None:
    for row in rows_of("ruler_cwe", length=2_048):
        assert set(Counter(listed_words(row, 1)).values()) == {1, 3}
        assert set(Counter(listed_words(row, 4)).values()) == {1, 6}


def test_where_the_words_run_out_all_come_from_a_longer_list(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("infini_eval.tasks.ruler_lists.all_words", lambda: all_words()[:60])
    options = (("common_times", "4"), ("others_times", "1"))
    for row in rows_of("ruler_cwe", *options, num_prompts=1):
        assert all("-" in word for word in listed_words(row, 4))  # adjective-noun pairs, the common ones too
    longer = [f"word{'abcdefghij'[i % 10]}{'klmnopqrst'[i // 10 % 10]}{i // 100}" for i in range(3_000)]
    (tmp_path / "words.json").write_text(json.dumps(dict(enumerate(longer))))
    (tmp_path / "words.txt").write_text("\n".join(longer))
    for name in ("words.json", "words.txt"):
        for row in rows_of("ruler_cwe", *options, ("words", str(tmp_path / name)), num_prompts=1):
            assert set(listed_words(row, 4)) <= set(longer)
            assert {word for word, n in Counter(listed_words(row, 4)).items() if n == 4} == set(
                json.loads(row["outputs"])
            )
    (tmp_path / "few.txt").write_text("\n".join(longer[:70]))
    with pytest.raises(DataError, match="70 words are too few"):
        rows_of("ruler_cwe", *options, ("words", str(tmp_path / "few.txt")))
    with pytest.raises(DataError, match="cannot be read"):
        rows_of("ruler_cwe", ("words", str(tmp_path / "none.txt")))


def test_frequent_words_are_the_answer_and_coded_for_each_prompt() -> None:
    vocabularies = []
    for row in rows_of("ruler_fwe"):
        listed = row["prompt"].partition("coded words. ")[2].partition("\n")[0].split()
        ranked = [word for word, _ in Counter(listed).most_common()]
        assert ranked[0] == "..." and ranked[1:4] == json.loads(row["outputs"])
        most = listed.count("...")
        for rank, word in enumerate(ranked[:20], 1):
            assert listed.count(word) == pytest.approx(most / rank**2, abs=1.01)
        vocabularies.append(set(ranked) - {"..."})
    assert not vocabularies[0] & vocabularies[1]


# ---- ruler_qa


def squad_file(folder: Path, articles: int = 4, paragraphs: int = 6) -> Path:
    """A miniature file in the layout of dev-v2.0.json: one question that cannot be answered for each paragraph."""
    data = []
    for a in range(articles):
        made = []
        for p in range(paragraphs):
            context = f"Town {a}x{p} was founded by Founder{a}x{p}. " + "It lies by the old river road. " * (
                9 + a + 2 * p
            )
            answers = [{"text": f"Founder{a}x{p}", "answer_start": 24}] * 3
            qas = [
                {
                    "question": f"Who founded town {a}x{p}?",
                    "id": f"{a}-{p}",
                    "answers": answers,
                    "is_impossible": False,
                },
                {"question": f"Who sold town {a}x{p}?", "id": f"{a}-{p}-no", "answers": [], "is_impossible": True},
            ]
            made.append({"context": context.strip(), "qas": qas})
        data.append({"title": f"Article {a}", "paragraphs": made})
    file = folder / "dev-v2.0.json"
    file.write_text(json.dumps({"version": "v2.0", "data": data}))
    return file


def hotpot_file(folder: Path, questions: int = 5) -> Path:
    """A miniature file in the layout of hotpot_dev_distractor_v1.json: ten paragraphs a question, two of them needed."""
    rows = []
    for q in range(questions):
        context = [
            [f"Film {q}-{i}", [f"Film {q}-{i} is a film.", f" It was made by Director{q}x{i}."]] for i in range(10)
        ]
        facts = [[f"Film {q}-3", 0], [f"Film {q}-3", 1], [f"Film {q}-7", 1]]
        rows.append(
            {
                "_id": str(q), "question": f"Who made film {q}-3?", "answer": f"Director{q}x3",
                "supporting_facts": facts, "context": context, "type": "bridge", "level": "hard",
            }
        )  # fmt: skip
    file = folder / "hotpot_dev_distractor_v1.json"
    file.write_text(json.dumps(rows))
    return file


def documents_of(row: dict[str, Any]) -> list[str]:
    context = row["prompt"].partition("given documents.\n\n")[2].rpartition("\n\nAnswer the question")[0]
    return [document.partition(":\n")[2] for document in re.split(r"\n\n(?=Document \d+:\n)", context)]


def test_squad_questions_stand_among_paragraphs_of_their_article_first(tmp_path: Path) -> None:
    file = ("file", str(squad_file(tmp_path)))
    rows = rows_of("ruler_qa_1", file, length=1_024, depths=(0, 50, 100), num_prompts=2)
    for number, row in enumerate(rows):
        article, paragraph = divmod(number, 6)  # in the file's order, without those that have no answer
        documents = documents_of(row)
        assert json.loads(row["outputs"]) == [f"Founder{article}x{paragraph}"]
        assert row["prompt"].endswith(f"Question: Who founded town {article}x{paragraph}? Answer:")
        assert row["token_count"] == 1_024 - 32 == tokenizer().count(row["prompt"])
        assert all(document.startswith(f"Town {article}x") for document in documents)
        place = next(i for i, document in enumerate(documents) if document.startswith(f"Town {article}x{paragraph} "))
        assert place == round((len(documents) - 1) * row["depth_percent"] / 100)
        assert json.loads(row["needles"]) == [documents[place]]
        assert len({row["haystack_hash"] for row in rows}) == len(rows)
    long = rows_of("ruler_qa_1", file, length=2_048, num_prompts=1)[0]
    assert len({document[:6] for document in documents_of(long)}) > 1 and long["haystack"] == "dev-v2.0.json"


def test_hotpotqa_questions_keep_all_their_paragraphs(tmp_path: Path) -> None:
    task = registry.load("tasks", "ruler_qa_2")
    rows = rows_of("ruler_qa_2", ("file", str(hotpot_file(tmp_path))), length=1_024)
    assert task.validate([sample_of(row) for row in rows]) == []
    for number, row in enumerate(rows):
        documents = documents_of(row)
        assert {
            f"Film {number}-{i}\nFilm {number}-{i} is a film. It was made by Director{number}x{i}." for i in range(10)
        } < set(documents)
        assert row["answer"] == f"Director{number}x3" and len(documents) > 11
        assert sorted(text[:8] for text in json.loads(row["needles"])) == [f"Film {number}-3", f"Film {number}-7"]
        assert row["real_depth"] == pytest.approx(row["depth_percent"], abs=5)
        assert row["token_count"] == 1_024 - 32
        score = registry.load("scorers", "string_match_part")
        assert score(f"It was director{number}X3.", sample_of(row)).value == 1.0


def test_documents_are_repeated_where_the_file_runs_out_but_never_the_answer(tmp_path: Path) -> None:
    for row in rows_of("ruler_qa_1", ("file", str(squad_file(tmp_path, 2, 2))), length=4_096):
        documents = documents_of(row)
        assert row["token_count"] == 4_096 - 32 and row["haystack_unique"] < 0.5
        assert documents.count(json.loads(row["needles"])[0]) == 1
        assert max(Counter(documents).values()) > 3


def test_questions_whose_own_documents_do_not_fit_are_left_out(tmp_path: Path) -> None:
    file = squad_file(tmp_path)
    held = json.loads(file.read_text())
    held["data"][0]["paragraphs"][0]["context"] += " It rains." * 2_000
    file.write_text(json.dumps(held))
    assert rows_of("ruler_qa_1", ("file", str(file)), length=1_024, num_prompts=1)[0]["answer"] == "Founder0x1"
    with pytest.raises(DataError, match="the documents that answer a question take at least"):
        rows_of("ruler_qa_1", ("file", str(file)), length=128)


def test_question_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(MaterialError, match=r"ruler_qa_1 needs (.|\n)*dev-v2.0.json"):
        rows_of("ruler_qa_1")
    with pytest.raises(MaterialError, match=r"ruler_qa_2 needs (.|\n)*hotpot_dev_distractor_v1.json"):
        rows_of("ruler_qa_2")
    with pytest.raises(DataError, match=r"no question file(.|\n)*download"):
        rows_of("ruler_qa_1", ("file", str(tmp_path / "absent.json")))
    with pytest.raises(DataError, match=r"another layout(.|\n)*SQuAD's layout"):
        rows_of("ruler_qa_1", ("file", str(hotpot_file(tmp_path))))
    with pytest.raises(DataError, match=r"another layout(.|\n)*HotpotQA's layout"):
        rows_of("ruler_qa_2", ("file", str(squad_file(tmp_path))))
    (tmp_path / "empty.json").write_text('{"data": []}')
    with pytest.raises(DataError, match=r"0 question\(s\) with an answer"):
        rows_of("ruler_qa_1", ("file", str(tmp_path / "empty.json")))


def test_questions_of_the_users_own(tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    lines = [
        {
            "question": f"Who built house {i}?",
            "answers": [f"Builder{i}"],
            "context": f"House {i} was built by Builder{i}. " * 9,
        }
        for i in range(60)
    ]
    file.write_text("\n".join(map(json.dumps, lines)))
    task = registry.load("tasks", "ruler_qa")
    rows = rows_of("ruler_qa", ("file", str(file)), depths=(0, 60, 100), num_prompts=2)
    for row in rows:
        assert row["token_count"] == LENGTH - 32
        number = row["answer"].removeprefix("Builder")
        documents = documents_of(row)
        place = next(i for i, document in enumerate(documents) if f"House {number} was" in document)
        assert place == round((len(documents) - 1) * row["depth_percent"] / 100)
        assert row["prompt"].endswith(f"Question: Who built house {number}? Answer:")
    assert task.validate([sample_of(row) for row in rows]) == []
    with pytest.raises(ConfigError, match="questions of yours"):
        rows_of("ruler_qa")
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_text('{"question": "x"}')
    with pytest.raises(DataError, match="line 1 is not a question"):
        rows_of("ruler_qa", ("file", str(wrong)))


# ---- labels and refusals


@pytest.mark.parametrize("task", ["ruler_niah_multivalue", "ruler_niah_multiquery"])
def test_rows_of_drawn_places_are_labelled_with_them(task: str) -> None:
    for row in rows_of(task, depths=(0, 100), num_prompts=2):
        assert row["real_depth"] == pytest.approx(row["depth_percent"], abs=3)


def test_a_haystack_is_refused_where_prompts_are_lists() -> None:
    with pytest.raises(ConfigError, match="--haystack_dir english does not go with the task ruler_vt"):
        rows_of("ruler_vt", haystack="english")
    assert rows_of("ruler_vt", segment_length=128, question_phase="border")[0]["token_count"] % 128 == 0
    with pytest.raises(ConfigError, match="--question-phase does not go with the task ruler_fwe"):
        rows_of("ruler_fwe", segment_length=128, question_phase="border")
