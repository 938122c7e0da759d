"""mrcr: chats of exact length in which the wanted text is the i-th of its kind, and the published layout."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infini_eval.api import registry
from infini_eval.data.reading import load_data
from infini_eval.errors import ConfigError, DataError
from support.small_runs import answered, made, rows, sample_of, tokenizer

TASK = registry.task("mrcr")


@pytest.mark.parametrize(("needles", "length"), [("2", 1_501), ("4", 4_096), ("8", 8_192)])
def test_the_answer_is_the_asked_text_of_its_kind(needles: str, length: int) -> None:
    ordinals = set()
    for row in rows("mrcr", length, depths=(0, 50, 100), options={"needles": needles}):
        turns = json.loads(row["_messages"])
        question = turns[-1][1]
        found = re.search(
            r"wrote (\d) times a (.+) about (\w+)\. Repeat the (\d)\w\w of .* with (\w{10}) and", question
        )
        number, form, topic, ordinal, code = found.groups()
        texts = [b for (_, a), (_, b) in pairwise(turns) if a == f"Write a {form} about {topic}."]
        assert number == needles and len(texts) == len(set(texts)) == int(needles)
        assert row["answer"] == code + texts[int(ordinal) - 1] and row["random_string_to_prepend"] == code
        assert turns[row["desired_msg_index"] + 1][1] == texts[int(ordinal) - 1]
        assert [role for role, _ in turns] == ["user", "assistant"] * (len(turns) // 2) + ["user"]
        assert row["token_count"] == length == tokenizer().count(row["prompt"])
        assert json.loads(row["needles"])[0] == texts[int(ordinal) - 1]
        assert row["real_depth"] == pytest.approx(row["depth_percent"], abs=12 if length > 2_000 else 30)
        ordinals.add(ordinal)
    assert len(ordinals) > 1


def test_rows_come_back_as_chats(tmp_path: Path) -> None:
    data = load_data(TASK, made("mrcr", tmp_path, 2_048, "--depths", "0,100"))
    for sample in data.samples:
        assert len(sample.turns) == sample.columns["total_messages"] > 4
        assert sample.prompt.startswith(f"User: {sample.turns[0][1]}\n\nAssistant: {sample.turns[1][1]}")
        assert sample.prompt.endswith("Assistant:") and sample.messages[-1]["role"] == "user"
        assert "_messages" not in sample.columns
        start, end = TASK.locate(sample)
        assert sample.columns["random_string_to_prepend"] + sample.prompt[start:end] == sample.answer
    assert TASK.validate(data.samples) == []


def test_a_text_that_is_gone_is_found() -> None:
    (row, *_) = rows("mrcr", 1_501, depths=(50,))
    row["prompt"] = row["prompt"].replace(json.loads(row["needles"])[0], "")
    assert [finding.kind for finding in TASK.validate([sample_of(row)])] == ["missing_needle"]


def test_other_numbers_of_needles_are_refused() -> None:
    with pytest.raises(ConfigError, match="needles=2, 4 or 8"):
        rows("mrcr", options={"needles": "3"})


def published(folder: Path, prompt: str | None = None) -> Path:
    """A row in the columns of openai/mrcr; contents are ours."""
    chat = [
        {"role": "user", "content": "write a poem about tin"},
        {"role": "assistant", "content": "Tin is thin."},
        {"role": "user", "content": "write a poem about tin"},
        {"role": "assistant", "content": "Tin can spin."},
        {"role": "user", "content": "Prepend aB3 to the 2nd poem."},
    ]
    row = {
        "prompt": json.dumps(chat) if prompt is None else prompt, "answer": "aB3Tin can spin.",
        "random_string_to_prepend": "aB3", "n_needles": 2, "desired_msg_index": 2, "total_messages": 5, "n_chars": 99,
    }  # fmt: skip
    pq.write_table(pa.Table.from_pylist([row]), folder / "2needle.parquet")
    return folder / "2needle.parquet"


def test_the_published_layout_is_read_and_asked(tmp_path: Path) -> None:
    (sample,) = load_data(TASK, published(tmp_path)).samples
    assert sample.turns[3] == ("assistant", "Tin can spin.") and len(sample.messages) == 5
    assert sample.columns["n_needles"] == 2 and TASK.locate(sample) is not None and TASK.validate([sample]) == []
    place = sample.prompt.index("Tin can spin.")
    assert sample.columns["real_depth"] == pytest.approx(100 * place / len(sample.prompt), abs=1e-3)
    assert sample.depth_percent == 5 * round(20 * place / len(sample.prompt))
    (record,) = answered("mrcr", published(tmp_path), tmp_path / "run")
    assert record["correct"] == 1.0 and record["n_needles"] == 2


def test_a_published_row_that_is_no_chat(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 0: the prompt is no chat(.|\n)*openai/mrcr"):
        load_data(TASK, published(tmp_path, prompt="What is the 2nd poem?"))


def test_the_commands(tmp_path: Path) -> None:
    data = made("mrcr", tmp_path, 2_048, "--depths", "0,100", "--option", "needles=4")
    assert [record["correct"] for record in answered("mrcr", data, tmp_path / "run")] == [1.0, 1.0]
