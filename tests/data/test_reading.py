"""Reading data sets of every kind that users have, filters, draws, and errors that say what a file holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infini_eval.data.reading import load_samples, select_samples
from infini_eval.errors import DataError

QUESTION = ". What is the pass key? The pass key is "


def rows(n: int = 12, **columns: Any) -> pa.Table:
    table = {
        "id": [f"r{i}" for i in range(n)],
        "prompt": [
            f"words. The pass key is {1000 + i}. Remember it. {1000 + i} is the pass key. x{QUESTION}" for i in range(n)
        ],
        "answer": [1000 + i for i in range(n)],
        "context_length": [1024] * n,
        "token_count": [1001] * n,
        "num_shots": [i % 2 for i in range(n)],
        "num_digits": [4] * n,
        "depth_percent": [(i % 3) * 50 for i in range(n)],
    }
    table.update(columns)
    return pa.table({name: values for name, values in table.items() if values is not None})


def write(table: pa.Table, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def test_a_file_a_folder_and_a_data_folder(tmp_path: Path) -> None:
    file = write(rows(), tmp_path / "one" / "train-00000-of-00001.parquet")
    data = load_samples(file)
    assert len(data.samples) == 12
    first = data.samples[0]
    assert (first.id, first.answer, first.depth_percent, first.context_length, first.num_shots) == (
        "r0",
        "1000",
        0.0,
        1024,
        0,
    )
    assert "prompt" not in first.columns and first.columns["token_count"] == 1001
    assert load_samples(file.parent).samples == data.samples
    nested = write(rows(), tmp_path / "two" / "data" / "train-00000-of-00001.parquet")
    write(rows(3), nested.parent / "test-00000-of-00001.parquet")
    assert load_samples(tmp_path / "two").fingerprint == data.fingerprint
    assert len(load_samples(tmp_path / "two").samples) == 12


def test_shards_are_read_in_order(tmp_path: Path) -> None:
    write(rows(2), tmp_path / "train-00001-of-00002.parquet")
    write(rows(2, id=["a", "b"]), tmp_path / "train-00000-of-00002.parquet")
    assert [s.id for s in load_samples(tmp_path).samples] == ["a", "b", "r0", "r1"]


def test_save_to_disk(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset(rows()).save_to_disk(str(tmp_path / "saved"))
    assert len(load_samples(tmp_path / "saved").samples) == 12
    datasets.DatasetDict({"train": datasets.Dataset(rows())}).save_to_disk(str(tmp_path / "split"))
    assert len(load_samples(tmp_path / "split").samples) == 12


def test_a_folder_of_saved_folders_is_one_data_set(tmp_path: Path) -> None:
    """What generate_data.py leaves: a folder for each length and depth."""
    for number, length in enumerate((512, 1024)):
        folder = tmp_path / f"needle_eval_data_and_{length}_ctx_and_depth_50_and_id_1_and_num_shots_0"
        folder.mkdir()
        table = rows(3, id=[f"{number}{i}" for i in range(3)], context_length=[length] * 3)
        with pa.ipc.new_stream(folder / "data.arrow", table.schema) as out:
            out.write_table(table)
        (folder / "state.json").write_text('{"_data_files": [{"filename": "data.arrow"}]}')
    data = load_samples(tmp_path)
    assert sorted(sample.context_length for sample in data.samples) == [512] * 3 + [1024] * 3
    assert "(2 folders)" in data.source
    assert len(load_samples(tmp_path, context_length=512).samples) == 3


def test_other_columns_of_other_sets(tmp_path: Path) -> None:
    """The 16k set has num_tokens and no shots; the simple needle set has float depths; answers may be text."""
    table = rows(num_shots=None, num_digits=None, token_count=None, answer=[str(1000 + i) for i in range(12)],
                 depth_percent=[float(i % 3 * 50) for i in range(12)], id=None)  # fmt: skip
    data = load_samples(write(table, tmp_path / "x.parquet"), num_shots=0, num_digits=4, depths=(50,))
    assert len(data.samples) == 4
    assert data.samples[0].answer == "1001" and data.samples[0].num_shots is None and data.samples[0].id == "0"
    assert ["num_shots" in note or "num_digits" in note for note in data.notes] == [True, True]


def test_filters(tmp_path: Path) -> None:
    file = write(rows(), tmp_path / "x.parquet")
    assert {s.num_shots for s in load_samples(file, num_shots=0).samples} == {0}
    assert len(load_samples(file, num_digits=0).samples) == 12
    assert {s.depth_percent for s in load_samples(file, depths=(0, 100)).samples} == {0.0, 100.0}
    with pytest.raises(DataError, match=r"(?s)no row.*filter on num_shots.*0 \(6 rows\), 1 \(6 rows\)"):
        load_samples(file, num_shots=3)
    with pytest.raises(DataError, match="filter on context_length"):
        load_samples(file, context_length=2048)


def test_rows_alike_have_keys_of_their_own(tmp_path: Path) -> None:
    table = pa.concat_tables([rows(1), rows(1)])
    one, two = load_samples(write(table, tmp_path / "x.parquet")).samples
    assert (one.occurrence, two.occurrence) == (0, 1) and one.key != two.key


def test_local_folder_of_a_hub_id_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"nobody/some-set(?s:.*)\./some-set/"):
        load_samples("nobody/some-set")
    write(rows(), tmp_path / "some-set" / "train-00000-of-00001.parquet")
    data = load_samples("nobody/some-set")
    assert len(data.samples) == 12 and "instead of the hub" in data.notes[0]


def test_errors_say_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no column answer; its columns: id, prompt"):
        load_samples(write(rows(answer=None), tmp_path / "a.parquet"))
    (tmp_path / "b.parquet").write_bytes(b"PAR1 not parquet")
    with pytest.raises(DataError, match=r"b\.parquet cannot be read"):
        load_samples(tmp_path / "b.parquet")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"holds: notes\.txt"):
        load_samples(tmp_path / "c")
    with pytest.raises(DataError, match="no data set at"):
        load_samples(tmp_path / "nowhere.parquet")
    with pytest.raises(DataError, match="holds no rows"):
        load_samples(write(rows(0), tmp_path / "d.parquet"))
    with pytest.raises(DataError, match=r"row 1 \(id r1\) has an empty"):
        load_samples(write(rows(2, answer=[1, None]), tmp_path / "e.parquet"))


def test_training_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="training data"):
        load_samples(write(rows(is_eval=["no"] * 12), tmp_path / "a.parquet"))
    followed = [
        f"{prompt}{answer}"
        for prompt, answer in zip(rows()["prompt"].to_pylist(), rows()["answer"].to_pylist(), strict=True)
    ]
    with pytest.raises(DataError, match="training data"):
        load_samples(write(rows(prompt=followed), tmp_path / "b.parquet"))


def test_draws_are_by_cell_nested_and_noted(tmp_path: Path) -> None:
    samples = load_samples(write(rows(60), tmp_path / "x.parquet")).samples
    five, notes = select_samples(samples, 5, seed=1)
    assert len(five) == 15 and notes == []
    assert five == select_samples(samples, 5, seed=1)[0] != select_samples(samples, 5, seed=2)[0]
    assert {s.id for s in five} <= {s.id for s in select_samples(samples, 9, seed=1)[0]}
    only_50 = [s for s in samples if s.depth_percent == 50]
    assert select_samples(only_50, 5, seed=1)[0] == [s for s in five if s.depth_percent == 50]
    everything, notes = select_samples(samples, 30, seed=1)
    assert (
        len(everything) == 60 and "asked for 30" in notes[0] and "20 at depth 0% of 1024 tokens, depth 50%" in notes[0]
    )
    assert select_samples(samples, None, seed=1) == (samples, [])
