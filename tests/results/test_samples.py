"""The samples of a run: one line each, valid after every failure; merged without loss, with one schema throughout."""

from __future__ import annotations

import errno
import json
import math
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infini_eval.errors import RunFolderError
from infini_eval.records import COLUMNS, NeedlePosition, Response, Sample, SampleRecord, Score
from infini_eval.results import merge
from infini_eval.results.merge import merge_samples
from infini_eval.results.reader import read_run
from infini_eval.results.samples import (
    SampleWriter,
    iter_samples,
    replica_name,
    unique_records,
)
from infini_eval.testing.fake_runs import FakeRun, fake_records, write_fake_run


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_record_is_one_line_at_once(tmp_path):
    sample = Sample(
        "1", "long prompt", "42", 50.0, 1024, columns={"note": "a\nb", "ratio": math.nan, "day": date(2025, 8, 12)}
    )
    response = Response("42", [4, 2], 1024, "stop", 0.5)
    record = SampleRecord(
        sample, response, {"exact_digits": Score(1.0, "42")}, "exact_digits", NeedlePosition(1, 2), "…"
    )
    with SampleWriter(tmp_path, replica_name(3)) as writer:
        writer.write(record)
        written = lines(tmp_path / "samples" / "replica-00003.jsonl")
        assert written == [json.loads(json.dumps(written[0]))]
        assert writer.written == 1
    assert written[0]["note"] == "a\nb"
    assert written[0]["ratio"] is None
    assert written[0]["day"] == "2025-08-12"
    assert "prompt" not in written[0]
    assert written[0]["sample_key"] == sample.key


def test_it_appends_and_heals_its_own_torn_line(tmp_path):
    path = tmp_path / "samples" / "r.jsonl"
    with SampleWriter(tmp_path, "r") as writer:
        writer.write({"sample_key": "a"})
    with path.open("a") as file:
        file.write('{"sample_key": "to')
    with SampleWriter(tmp_path, "r") as writer:
        writer.write({"sample_key": "b"})
    assert [row["sample_key"] for row in lines(path)] == ["a", "b"]


def test_disk_full_in_the_middle_of_a_line_leaves_whole_lines(tmp_path, monkeypatch):
    real_write = os.write
    with SampleWriter(tmp_path, "r") as writer:
        writer.write({"sample_key": "a"})

        def nearly_full(descriptor, data):
            if nearly_full.called:
                raise OSError(errno.ENOSPC, "No space left on device")
            nearly_full.called = True
            return real_write(descriptor, data[:5])

        nearly_full.called = False
        monkeypatch.setattr(os, "write", nearly_full)
        with pytest.raises(RunFolderError, match="No space left on device"):
            writer.write({"sample_key": "b"})
        monkeypatch.undo()
        writer.write({"sample_key": "c"})
    assert [row["sample_key"] for row in lines(writer.path)] == ["a", "c"]


def test_a_real_limit_on_file_size_is_reported(tmp_path):
    """The same through the kernel: RLIMIT_FSIZE takes a part of a line, then refuses."""
    script = """
import sys
from infini_eval.errors import RunFolderError
from infini_eval.results import merge
from infini_eval.results.merge import merge_samples
from infini_eval.results.samples import SampleWriter
with SampleWriter(sys.argv[1], "r") as writer:
    try:
        for number in range(1000):
            writer.write({"sample_key": str(number), "filler": "x" * 50})
    except RunFolderError as error:
        print(error)
"""

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, preexec_fn=limit)
    assert "File too large" in done.stdout, done.stderr
    path = tmp_path / "samples" / "r.jsonl"
    assert [row["sample_key"] for row in lines(path)] == [str(number) for number in range(len(lines(path)))]
    assert len(lines(path)) > 5


def test_an_unwritable_place_is_an_error_before_any_sample(tmp_path):
    (tmp_path / "samples").write_text("a file")
    with pytest.raises(RunFolderError, match="samples"):
        SampleWriter(tmp_path, "r")


def test_a_killed_process_loses_at_most_its_last_line(tmp_path):
    script = """
import os, signal, sys
from infini_eval.results import merge
from infini_eval.results.merge import merge_samples
from infini_eval.results.samples import SampleWriter
writer = SampleWriter(sys.argv[1], "r")
for number in range(20):
    writer.write({"sample_key": str(number)})
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert len(lines(tmp_path / "samples" / "r.jsonl")) == 20


def row(key, *, depth=50.0, length=1024, status="ok", correct=1.0, **more):
    correct = None if status == "failed" else correct
    ours = {"sample_key": key, "id": key, "status": status, "correct": correct}
    return {**ours, "context_length": length, "depth_percent": depth, **more}


def write(folder, *replicas):
    for number, rows in enumerate(replicas):
        with SampleWriter(folder, replica_name(number)) as writer:
            for record in rows:
                writer.write(record)


def test_one_row_a_sample_in_one_order(tmp_path):
    first = [row("b", depth=0), row("c", status="failed"), row("a", length=None)]
    second = [row("c", correct=0.0), row("b", depth=0, correct=0.0), row("d", depth=0, status="failed")]
    write(tmp_path, first, second)
    summary = merge_samples(tmp_path)
    rows = pq.read_table(tmp_path / "samples.parquet").to_pylist()
    assert [(r["sample_key"], r["correct"]) for r in rows] == [("b", 1.0), ("d", None), ("c", 0.0), ("a", 1.0)]
    assert (summary.rows, summary.failed, summary.repeated, summary.unreadable) == (4, 1, 2, 0)


def test_columns_are_the_union_and_types_are_consistent(tmp_path):
    write(
        tmp_path,
        [row("a", number=1, mixed=1, nested=[1], flag=True, big=2**80), row("b", number=2.5, mixed="x", error=None)],
    )
    merge_samples(tmp_path)
    table = pq.read_table(tmp_path / "samples.parquet")
    kinds = {field.name: str(field.type) for field in table.schema}
    assert kinds["number"] == "double"
    assert kinds["mixed"] == "string"
    assert kinds["nested"] == "string"
    assert kinds["flag"] == "bool"
    assert kinds["error"] == "string"
    assert kinds["big"] == "string"
    assert kinds["context_length"] == "int64"
    assert kinds["correct"] == "double"
    assert table.column("mixed").to_pylist() == ["1", "x"]
    assert table.column("flag").to_pylist() == [True, None]


def test_a_run_of_nulls_has_the_schema_of_any_other(tmp_path):
    write(tmp_path / "a", [row("a", extracted=None, needle_segment=None)])
    write(tmp_path / "b", [row("a", extracted="1", needle_segment=3)])
    for name in "ab":
        merge_samples(tmp_path / name)
    assert pq.read_schema(tmp_path / "a" / "samples.parquet").equals(pq.read_schema(tmp_path / "b" / "samples.parquet"))


def test_an_empty_run_gives_an_empty_table(tmp_path):
    assert merge_samples(tmp_path).rows == 0
    assert pq.read_table(tmp_path / "samples.parquet").num_rows == 0


def test_torn_lines_are_counted_not_fatal(tmp_path):
    write(tmp_path, [row("a")])
    with (tmp_path / "samples" / "replica-00000.jsonl").open("a") as file:
        file.write('{"sample_')
    assert merge_samples(tmp_path).unreadable == 1


@given(
    records=st.lists(
        st.tuples(st.sampled_from("abcdef"), st.booleans(), st.sampled_from([0.0, 50.0, None])), max_size=30
    ),
    seed=st.integers(0, 1000),
)
def test_merge_never_loses_nor_repeats_a_sample(records, seed):
    """However samples were spread, failed and repeated: one row a key, ok wherever one was ok, order independent."""
    depth = {key: depth for key, _, depth in records}
    rows = [row(key, depth=depth[key], status="ok" if ok else "failed") for key, ok, _ in records]
    merged = unique_records(rows)
    assert {r["sample_key"] for r in merged} == {key for key, _, _ in records}
    assert len(merged) == len(depth)
    assert {r["sample_key"] for r in merged if r["status"] == "ok"} == {key for key, ok, _ in records if ok}
    random.Random(seed).shuffle(rows)
    assert unique_records(rows) == merged


def merged_at_once(folder):
    """The same merge with all records in memory."""
    records = unique_records(line.record for line in iter_samples(folder) if line.record is not None)
    names = list(dict.fromkeys(name for record in records for name in record))
    return names, [[record.get(name) for name in names] for record in records]


VALUES = st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-1, 1) | st.sampled_from(["", "é", "x\0y", "😀"])
RECORDS = st.fixed_dictionaries(
    {
        "sample_key": st.sampled_from(["a", "é", "z", "\uffff", "😀", "b\0c"]),
        "id": VALUES,
        "status": st.sampled_from(["ok", "failed"]),
        "context_length": st.sampled_from([None, 0, -0.0, 1024, 1024.5]),
        "depth_percent": st.sampled_from([None, 0, 50.0]),
    },
    optional={"note": VALUES, "more": VALUES},
)


@given(files=st.lists(st.lists(RECORDS, max_size=8), max_size=4), rows=st.integers(1, 5))
def test_a_merge_block_by_block_has_the_rows_of_one_at_once(files, rows):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(merge, "BLOCK_ROWS", rows)
        patch.setattr(merge, "CHUNK", 3)
        patch.setattr(merge, "MOST_OPEN", 2)
        write(Path(folder), *files)
        names, expected = merged_at_once(folder)
        assert merge_samples(folder).rows == len(expected)
        table = pq.read_table(Path(folder) / "samples.parquet")
        types = dict(zip(table.schema.names, map(str, table.schema.types), strict=True))
        if expected:
            assert table.column_names == names
            assert [list(row.values()) for row in table.to_pylist()] == [
                [merge._fitted([value], types[name])[0] for name, value in zip(names, row, strict=True)]
                for row in expected
            ]


def test_a_small_run_is_one_block_as_arrow_writes_it(tmp_path):
    write(tmp_path, [row("b", note="x"), row("a")], [row("c", status="failed")])
    merge_samples(tmp_path)
    written = (tmp_path / "samples.parquet").read_bytes()
    table = pq.read_table(tmp_path / "samples.parquet")
    pq.write_table(table, tmp_path / "again.parquet", compression="zstd")
    assert written == (tmp_path / "again.parquet").read_bytes()


def test_records_of_another_run_are_reported_once_a_file_and_left_out(tmp_path):
    write(tmp_path, [row("a"), row("x"), row("y")], [row("b")])
    summary = merge_samples(tmp_path, planned={"a", "b"})
    assert pq.read_table(tmp_path / "samples.parquet").column("sample_key").to_pylist() == ["a", "b"]
    assert (summary.rows, summary.foreign, summary.repeated) == (2, 2, 0)
    assert summary.notes == ("samples/replica-00000.jsonl: 2 lines are of no sample of this run, and left out",)


def test_a_report_leaves_out_what_a_complete_merge_has_left_out(tmp_path):
    write_fake_run(tmp_path, FakeRun(depths=(0, 50), per_cell=2))
    keys = {line.record["sample_key"] for line in iter_samples(tmp_path)}
    write_fake_run(tmp_path / "other", FakeRun(depths=(0,), per_cell=3, seed=1))
    (tmp_path / "other" / "samples" / "replica0.jsonl").rename(tmp_path / "samples" / "theirs.jsonl")
    shutil.rmtree(tmp_path / "other")
    assert len(read_run(tmp_path)) == 7
    merge_samples(tmp_path, planned=keys)
    records = read_run(tmp_path)
    assert len(records) == 4
    assert records.notes == ("3 record(s) of no sample of this run were left out",)


def test_an_interrupted_merge_leaves_the_folder_as_it_was(tmp_path):
    write(tmp_path, [row("a")])
    before = sorted(tmp_path.rglob("*"))

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge_samples(tmp_path, check=stop)
    assert sorted(tmp_path.rglob("*")) == before


def test_one_schema_from_record_to_report(tmp_path):
    """Every column of a record is in COLUMNS, with the type that the merge writes and the report reads."""
    record = next(fake_records(FakeRun(per_cell=1)))
    with SampleWriter(tmp_path, replica_name(0)) as writer:
        writer.write(record)
    schema = pq.read_schema(merge_samples(tmp_path).path)
    ours = {column.name: column for column in COLUMNS if column.filled_by == "record"}
    assert [name for name in record.to_json() if name in ours] == list(ours)
    assert set(record.to_json()) - set(ours) == {"haystack_id", *record.scores}
    arrow = {"text": pa.string(), "integer": pa.int64(), "number": pa.float64(), "flag": pa.bool_()}
    assert all(schema.field(name).type == arrow[column.kind] for name, column in ours.items())
    table = read_run(tmp_path).table
    arrow["integer"] = pa.float64()
    assert all(table.schema.field(column.name).type == arrow[column.kind] for column in COLUMNS if column.reported)
    assert set(table.column_names) == {column.name for column in COLUMNS if column.reported}
