"""Reading run folders: ours, half-written ones, other tools' files, and everything that is not a result."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infini_eval.errors import DataError, RunFolderError
from infini_eval.results import record_files
from infini_eval.results.reader import find_runs, read_run
from infini_eval.testing.fake_runs import FakeRun, fake_records, write_fake_run

SMALL = FakeRun(depths=(0, 50, 100), per_cell=4)
FOREIGN = [
    {"depth_percent": 0, "answer": 42, "generation_text": "42."},
    {"depth_percent": 50, "answer": 7, "generation_text": "71"},
]


def lines(path: Path, records: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_reads_every_record_of_several_files(tmp_path):
    records = read_run(write_fake_run(tmp_path, SMALL, files=3))
    expected = [record.to_json() for record in fake_records(SMALL)]
    assert len(records) == records.planned == 12
    assert not records.notes
    by_key = dict(zip(records.texts("sample_key", np.arange(12)), records.number("correct"), strict=True))
    assert by_key == {record["sample_key"]: record["correct"] for record in expected}


def test_a_torn_last_line_costs_that_line_only_and_is_reported(tmp_path):
    path = write_fake_run(tmp_path, SMALL) / "samples" / "replica0.jsonl"
    data = path.read_bytes()
    path.write_bytes(data[:-40])
    records = read_run(tmp_path)
    assert len(records) == 11
    assert "torn" in records.notes[0]
    assert path.read_bytes() == data[:-40]


def test_a_last_line_that_only_lacks_its_newline_counts(tmp_path):
    path = write_fake_run(tmp_path, SMALL) / "samples" / "replica0.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    records = read_run(tmp_path)
    assert (len(records), records.notes) == (12, ())


@pytest.mark.parametrize(
    "garbage", [b"{broken\n", b"[1, 2]\n", b'{"answer": "\xff"}\n', b"\0\0\0\0\n", b'{"correct": "\n']
)
def test_a_broken_line_in_the_middle_is_left_out_and_counted(tmp_path, garbage):
    path = write_fake_run(tmp_path, SMALL) / "samples" / "replica0.jsonl"
    first, rest = path.read_bytes().split(b"\n", 1)
    path.write_bytes(first + b"\n" + garbage + rest)
    records = read_run(tmp_path)
    assert len(records) == 12
    assert "1 line(s)" in records.notes[0]
    assert "(line 2)" in records.notes[0]


def test_a_repeated_sample_counts_once_and_a_finished_one_beats_a_failed_one(tmp_path):
    record = next(fake_records(SMALL)).to_json()
    failed = {**record, "status": "failed", "correct": None, "generation_text": ""}
    other = {**record, "correct": 0.0}
    lines(tmp_path / "samples" / "a.jsonl", [failed, record, other])
    records = read_run(tmp_path)
    assert records.number("correct").tolist() == [record["correct"]]
    assert "counted once" in records.notes[0]


def test_the_jsonl_files_are_the_truth_and_a_different_parquet_is_said(tmp_path):
    write_fake_run(tmp_path, SMALL)
    table = pa.Table.from_pylist([record.to_json() for record in fake_records(SMALL)])
    pq.write_table(table, tmp_path / "samples.parquet")
    assert not read_run(tmp_path).notes
    pq.write_table(table.slice(0, 5), tmp_path / "samples.parquet")
    records = read_run(tmp_path)
    assert len(records) == 12
    assert "samples.parquet (5 records) differs" in records.notes[0]


def test_a_merged_parquet_alone_is_enough(tmp_path):
    table = pa.Table.from_pylist([record.to_json() for record in fake_records(SMALL)])
    pq.write_table(table, tmp_path / "samples.parquet")
    assert len(read_run(tmp_path)) == 12


@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "csv"])
def test_foreign_files_give_the_same_columns(tmp_path, suffix):
    path = tmp_path / f"answers.{suffix}"
    if suffix == "jsonl":
        lines(path, FOREIGN)
    else:
        table = pa.Table.from_pylist(FOREIGN)
        pq.write_table(table, path) if suffix == "parquet" else pa_csv.write_csv(table, path)
    records = read_run(tmp_path)
    assert records.number("depth_percent").tolist() == [0, 50]
    assert records.texts("answer", np.arange(2)) == ["42", "7"]
    assert records.texts("generation_text", np.arange(2)) == ["42.", "71"]
    assert np.isnan(records.number("context_length")).all()
    assert records.planned is None


def test_leading_zeros_of_a_csv_answer_survive(tmp_path):
    (tmp_path / "a.csv").write_text('depth_percent,answer,generation_text\n5,0412,"0412,\nyes"\n')
    records = read_run(tmp_path)
    assert records.texts("answer", np.arange(1)) == ["0412"]
    assert records.texts("generation_text", np.arange(1)) == ["0412,\nyes"]


def test_columns_of_changing_type_are_read_line_by_line(tmp_path):
    mixed = [*FOREIGN, {"depth_percent": "100", "answer": "0012", "generation_text": "\ud800 12", "correct": True}]
    lines(tmp_path / "a.jsonl", mixed)
    records = read_run(tmp_path)
    assert records.number("depth_percent").tolist() == [0, 50, 100]
    assert records.texts("answer", np.arange(3)) == ["42", "7", "0012"]
    assert records.number("correct")[2] == 1
    assert records.texts("generation_text", np.array([2])) == ["\ufffd 12"]


def test_an_answer_longer_than_a_block_is_read(tmp_path):
    lines(tmp_path / "a.jsonl", [{**FOREIGN[0], "generation_text": "x" * (10 * 1024**2)}, FOREIGN[1]])
    assert len(read_run(tmp_path)) == 2


def test_a_usable_file_is_read_and_an_unusable_one_is_named(tmp_path):
    lines(tmp_path / "good.jsonl", FOREIGN)
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    (tmp_path / "broken.parquet").write_bytes(b"not parquet")
    records = read_run(tmp_path)
    assert len(records) == 2
    assert "other.csv has no column depth_percent, answer, generation_text" in " ".join(records.notes)
    assert "broken.parquet cannot be read" in " ".join(records.notes)


def test_only_unusable_files_is_an_error_that_names_them_and_the_columns(tmp_path):
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError) as caught:
        read_run(tmp_path)
    assert "other.csv has no column" in caught.value.problem
    assert "generation_text" in caught.value.valid


def test_a_run_that_has_not_begun_says_what_is_planned(tmp_path):
    write_fake_run(tmp_path, SMALL, keep=0)
    with pytest.raises(RunFolderError, match=r"no finished sample yet \(0 of 12 planned\)"):
        read_run(tmp_path)
    (tmp_path / "samples" / "replica0.jsonl").unlink()
    with pytest.raises(RunFolderError, match="0 of 12 planned"):
        read_run(tmp_path)


def test_an_unreadable_manifest_is_said_and_the_records_are_read(tmp_path):
    write_fake_run(tmp_path, SMALL)
    (tmp_path / "manifest.json").write_text('{"model": ')
    records = read_run(tmp_path)
    assert len(records) == 12
    assert "manifest.json cannot be read" in records.notes[0]


def test_pickles_are_never_read(tmp_path):
    (tmp_path / "results_0.pkl").write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    with pytest.raises(DataError, match="never read") as caught:
        find_runs(tmp_path)
    assert "evaluate again" in caught.value.next_step


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(RunFolderError, match="no such folder"):
        find_runs(tmp_path / "absent")
    with pytest.raises(DataError, match="is empty"):
        find_runs(tmp_path)


def test_find_runs_descends_in_natural_order_and_not_into_a_run(tmp_path):
    for name in ("passkey_10", "passkey_2", "deep/er/passkey_1"):
        write_fake_run(tmp_path / name, SMALL)
    (tmp_path / "passkey_2" / "plots").mkdir()
    lines(tmp_path / "foreign" / "a.jsonl", FOREIGN)
    lines(tmp_path / ".hidden" / "a.jsonl", FOREIGN)
    found = [path.relative_to(tmp_path).as_posix() for path in find_runs(tmp_path)]
    assert found == ["deep/er/passkey_1", "foreign", "passkey_2", "passkey_10"]
    assert find_runs(tmp_path / "passkey_2") == [tmp_path / "passkey_2"]


def test_infinity_is_unknown(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        '{"depth_percent": 0, "correct": 1, "seconds": 1e400, "prompt_tokens": Infinity}\n'
    )
    records = read_run(tmp_path)
    assert np.isnan(records.number("seconds")).all()
    assert np.isnan(records.number("prompt_tokens")).all()


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.integers(0, 10**6), st.binary(max_size=3), st.integers(0, 200))
def test_damage_anywhere_gives_records_or_a_clear_error(tmp_path, place, garbage, cut):
    path = write_fake_run(tmp_path, SMALL) / "samples" / "replica0.jsonl"
    data = path.read_bytes()
    place %= len(data)
    path.write_bytes(data[:place] + garbage + data[place + cut :])
    with contextlib.suppress(DataError, RunFolderError):
        records = read_run(tmp_path)
        assert 0 < len(records) <= 12
        assert len(records.texts("excerpt", np.arange(len(records)))) == len(records)


@pytest.mark.parametrize("size", [1, 700, 5000])
def test_a_large_file_is_read_piece_by_piece(tmp_path, monkeypatch, size):
    folder = write_fake_run(tmp_path, FakeRun(depths=(0, 50), per_cell=5))
    path = next((folder / "samples").glob("*.jsonl"))
    path.write_bytes(path.read_bytes() + b'{"torn')
    whole = read_run(folder)
    monkeypatch.setattr(record_files, "_PIECE_BYTES", size)
    found = read_run(folder)
    assert found.table.equals(whole.table) and len(found) == 10
    assert found.notes == whole.notes and "torn" in found.notes[0]
