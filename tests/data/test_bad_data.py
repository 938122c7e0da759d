"""Data of odd types: columns that say where a sample belongs, text that is none, columns that stand twice; one error each."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infini_eval.data import haystack
from infini_eval.data.reading import load_samples
from infini_eval.data.sources import Source
from infini_eval.errors import DataError

GOOD = {
    "prompt": ["What is it?", "What is that?"],
    "answer": ["x", "y"],
    "depth_percent": [0.0, 50.0],
    "context_length": [10, 20],
    "num_shots": [0, 0],
    "num_digits": [1, 1],
    "id": ["a", "b"],
}
NOW = datetime.datetime(2020, 1, 1)
NOT_UTF8 = pa.Array.from_buffers(
    pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")]
)
ODD = {
    "text": ["zero", "\x1b[31mten"],
    "lists": [[1], []],
    "times": [NOW, NOW],
    "dates": [NOW.date(), NOW.date()],
    "nanoseconds": pa.array([1, 2], pa.timestamp("ns")),
    "durations": pa.array([1, 2], pa.duration("s")),
    "objects": [{"a": 1}, {"a": 2}],
    "bytes": [b"\xff", b"\xfe"],
    "categories": pa.array(["a", "b"]).dictionary_encode(),
    "not UTF-8": NOT_UTF8,
    "NaN": [float("nan")] * 2,
    "infinite": [float("inf")] * 2,
    "below 0": [-5, -6],
    "huge": [1e300, 1e300],
    "unsigned": pa.array([2**63 + 5] * 2, pa.uint64()),
}
PLACING = ("depth_percent", "context_length", "num_shots", "num_digits")
FILTERS = {"depth_percent": {"depths": (0,)}, "context_length": {"context_length": 10}, "num_shots": {"num_shots": 0}}


def written(path: Path, **columns) -> Path:
    pq.write_table(pa.table(GOOD | columns), path / "data.parquet")
    return path / "data.parquet"


def refused(path: Path, **filters) -> str:
    with pytest.raises(DataError) as caught:
        load_samples(path, **filters)
    assert len(str(caught.value)) < 1_000
    return str(caught.value)


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("column", PLACING)
def test_a_column_that_places_samples_holds_numbers_in_bounds(tmp_path, column, kind) -> None:
    path = written(tmp_path, **{column: ODD[kind]})
    assert kind == "not UTF-8" or column in refused(path)
    refused(path, **FILTERS.get(column, {}))


def test_numbers_written_as_texts_or_decimals_are_numbers(tmp_path) -> None:
    decimals = pa.array(["25.5", "50"]).cast(pa.decimal128(10, 2))
    (first, _) = load_samples(written(tmp_path, depth_percent=decimals, context_length=["10", "20"])).samples
    assert (first.depth_percent, first.context_length) == (25.5, 10)


@pytest.mark.parametrize("column", ["prompt", "answer", "id", "extra"])
def test_text_that_is_not_utf8_is_refused(tmp_path, column) -> None:
    assert "cannot be read as parquet" in refused(written(tmp_path, **{column: NOT_UTF8}))


@pytest.mark.parametrize(
    "names", [("prompt", "answer", "answer"), ("prompt", "prompt", "answer"), ("prompt", "answer", "z", "z")]
)
def test_a_column_that_stands_twice_is_named(tmp_path, names) -> None:
    path = tmp_path / "data.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array(["a"])] * len(names), names=list(names)), path)
    assert "more than once" in refused(path)


def test_half_characters_are_replaced(tmp_path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(
        json.dumps({"prompt": "a \ud800 b", "answer": "x \U0001f600", "id": "\udfff", "\ud800": "\ud800"}) + "\n"
    )
    (sample,) = load_samples(path).samples
    assert (sample.prompt, sample.answer, sample.id) == ("a \ufffd b", "x \U0001f600", "\ufffd")
    assert sample.key and sample.columns["\ufffd"] == "\ufffd"


LINES = {
    "deep": "[" * 100_000,
    "5,000 digits": '{"prompt": "a", "answer": ' + "9" * 5_000 + "}",
    "400 digits": '{"prompt": "a", "answer": "x", "context_length": ' + "9" * 400 + "}",
    "a part without text": json.dumps({"messages": [{"role": "user", "content": [{"type": "text"}]}], "answer": "x"}),
    "a part of a list": json.dumps(
        {"messages": [{"role": "user", "content": [{"type": ["x"], "text": 5}]}], "answer": "x"}
    ),
}


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_lines_that_hold_no_sample_are_one_error(tmp_path, line) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(line + "\n")
    refused(path)


def test_aliases_that_are_no_list_are_left_out(tmp_path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps({"prompt": "a", "answer": {"value": "x", "aliases": 5}}) + "\n")
    assert load_samples(path).samples[0].answer == "x"


@pytest.mark.parametrize("kind", [name for name in ODD if name not in ("text", "categories")])
def test_a_haystack_of_no_texts_is_one_error(tmp_path, kind) -> None:
    path = tmp_path / "hay.parquet"
    pq.write_table(pa.table({"text": ODD[kind]}), path)
    with pytest.raises(DataError):
        "".join(Source(str(path)).parts())


def test_a_haystack_without_spaces_is_refused_before_it_is_read_whole() -> None:
    read = []

    def endless():
        while len(read) < 1_000:
            read.append(1)
            yield "x" * 1_000_000

    with pytest.raises(DataError, match="without two words"):
        list(haystack._blocks(endless(), "endless"))
    assert len(read) < 10


@pytest.mark.parametrize(
    "value", ["[broken", "[" * 100_000, 5, [{"a": 1}], [["x"]], {"a": 1}], ids=lambda value: f"{value!s:.9}"
)
@pytest.mark.parametrize("column", ["outputs", "needles"])
def test_several_answers_or_needles_are_a_list_of_texts(tmp_path, column, value) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps({"prompt": "a", "answer": "x", column: value}) + "\n")
    assert column in refused(path)
    path.write_text(json.dumps({"prompt": "a", "answer": "x", column: '["x", 5]'}) + "\n")
    assert load_samples(path).samples
