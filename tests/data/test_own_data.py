"""Data of the user's own: every kind of file, columns of any name, chats, depths that nobody says, results taken for data."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infini_eval.data.reading import load_data, load_samples
from infini_eval.errors import ConfigError, DataError
from infini_eval.records import Sample
from infini_eval.tasks.aa_lcr import TASK as AA_LCR
from infini_eval.tasks.qa import TASK as QA
from infini_eval.testing.fake_runs import FakeRun, write_fake_run

LONG = "word " * 40_000  # 200,000 characters: more than the csv module's usual limit
ROWS = [
    {
        "id": "a",
        "prompt": f"{LONG}The colour of the gate is teal. What is its colour?",
        "answer": "teal",
        "depth_percent": 50,
    },
    {
        "id": "b",
        "prompt": 'He said: "0412", he did,\nand left. What did he say?',
        "answer": "0412",
        "depth_percent": 25,
    },
]


def as_csv(rows: list[dict[str, Any]], separator: str = ",") -> str:
    def cell(value: Any) -> str:
        return '"' + str(value).replace('"', '""') + '"'

    lines = [separator.join(rows[0]), *(separator.join(cell(value) for value in row.values()) for row in rows)]
    return "\n".join(lines) + "\n"


def as_lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def write(path: Path, text: str | list[dict[str, Any]]) -> Path:
    """A file of text, or of rows as JSON lines; packed as its name says."""
    content = (text if isinstance(text, str) else as_lines(text)).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz":
        content = gzip.compress(content)
    elif path.suffix == ".zst":
        content = pa.compress(content, codec="zstd", asbytes=True)
    path.write_bytes(content)
    return path


def shape(samples: list[Sample]) -> list[tuple[str, str, str, float]]:
    return [(sample.id, sample.prompt, sample.answer, sample.depth_percent) for sample in samples]


EXPECTED = [(row["id"], row["prompt"], row["answer"], float(row["depth_percent"])) for row in ROWS]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.csv", as_csv(ROWS)),
        ("x.tsv", as_csv(ROWS, "\t")),
        ("semicolons.csv", as_csv(ROWS, ";")),
        ("bom.csv", "\ufeff" + as_csv(ROWS)),
        ("x.csv.gz", as_csv(ROWS)),
        ("x.jsonl", as_lines(ROWS)),
        ("x.jsonl.zst", as_lines(ROWS)),
        ("x.jsonl.gz", as_lines(ROWS)),
        ("x.json", json.dumps(ROWS)),
        ("lines.json", as_lines(ROWS)),
        ("nested.json", json.dumps({"version": 1, "rows": ROWS})),
        ("columns.json", json.dumps({key: {str(i): row[key] for i, row in enumerate(ROWS)} for key in ROWS[0]})),
        ("x.json.zst", json.dumps(ROWS)),
    ],
)
def test_every_kind_of_file_holds_the_same_rows(tmp_path: Path, name: str, text: str) -> None:
    file = write(tmp_path / name, text)
    assert shape(load_samples(file).samples) == EXPECTED
    assert shape(load_samples(tmp_path).samples) == EXPECTED  # as the only file of a folder


def test_a_parquet_file_with_columns_of_other_names(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([{"question": "q?", "target": 7}]), tmp_path / "x.parquet")
    assert [(s.prompt, s.answer) for s in load_samples(tmp_path / "x.parquet").samples] == [("q?", "7")]


def test_splits(tmp_path: Path) -> None:
    for split in ("test", "validation"):
        write(tmp_path / f"{split}.jsonl", [{**ROWS[1], "id": split}])
    both = load_samples(tmp_path)
    assert [sample.id for sample in both.samples] == ["test", "validation"] and "--split" in both.notes[0]
    test = load_samples(tmp_path, split="test")
    assert [sample.id for sample in test.samples] == ["test"] and test.settings["split"] == "test"
    write(tmp_path / "train.jsonl", [{**ROWS[1], "id": "train"}])
    assert [sample.id for sample in load_samples(tmp_path).samples] == ["train"]
    with pytest.raises(DataError, match=r"has no split 'dev'\n  valid: test, train, validation"):
        load_samples(tmp_path, split="dev")


def test_a_saved_dictionary_of_splits(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.DatasetDict({"test": datasets.Dataset.from_list(ROWS)}).save_to_disk(str(tmp_path / "saved"))
    assert shape(load_samples(tmp_path / "saved", split="test").samples) == EXPECTED
    with pytest.raises(DataError, match="--split test"):
        load_samples(tmp_path / "saved")


def test_columns_as_they_are_named(tmp_path: Path) -> None:
    rows = [{"key": 3, "text": "Red is first.", "asks": "What is first?", "is": "Red", "where": 10.0}]
    file = write(tmp_path / "x.jsonl", rows)
    columns = {"prompt": "text+asks", "answer": "is", "depth_percent": "where", "id": "key"}
    data = load_samples(file, columns=columns)
    assert shape(data.samples) == [("3", "Red is first.\n\nWhat is first?", "Red", 10.0)]
    assert data.settings == {"columns": columns} and data.notes == []
    assert set(data.samples[0].columns) == {"key", "where", "answer", "depth_percent", "id"}  # no prompt is recorded


@pytest.mark.parametrize(
    ("row", "prompt", "answer"),
    [
        ({"question": "q?", "target": "t"}, "q?", "t"),
        ({"context": "c", "question": "q?", "answers": ["t", "u"]}, "c\n\nq?", "t"),
        ({"context": "c", "question": "q?", "answers": {"text": ["t"], "answer_start": [0]}}, "c\n\nq?", "t"),
        ({"instruction": "do", "input": "this", "output": "t"}, "do\n\nthis", "t"),
        ({"input": "q?", "context": "c", "expected": 12}, "c\n\nq?", "12"),
        ({"question": "q?", "answer": {"value": "t", "aliases": ["u"]}}, "q?", "t"),
    ],
)
def test_usual_names_are_guessed_and_said(tmp_path: Path, row: dict, prompt: str, answer: str) -> None:
    data = load_samples(write(tmp_path / "x.jsonl", [row]))
    assert (data.samples[0].prompt, data.samples[0].answer) == (prompt, answer)
    assert any("were guessed: --columns prompt=" in note for note in data.notes)
    said = load_samples(tmp_path / "x.jsonl", columns=data.settings["columns"])
    assert (said.samples, said.settings) == (data.samples, data.settings)  # typed or guessed: one run


def test_several_right_answers_are_all_references(tmp_path: Path) -> None:
    from infini_eval.scorers.text_match import references

    rows = [{"question": "q?", "answers": ["t", "u", "t"]}, {"question": "r?", "answers": ["v"]}]
    assert [references(sample) for sample in load_samples(write(tmp_path / "x.jsonl", rows)).samples] == [
        ("t", "u"),
        ("v",),
    ]


def test_a_missing_column_says_which_there_are_and_what_to_type(tmp_path: Path) -> None:
    rows = [{"body": "a long text that asks something", "solved": "x", "row_id": 1}]
    with pytest.raises(DataError) as error:
        load_samples(write(tmp_path / "x.jsonl", rows))
    assert "no column prompt and no column answer; its columns: body, solved, row_id" in error.value.problem
    assert error.value.next_step == "it may be meant so: --columns prompt=body,answer=solved"
    said = r"no column bodi; did you mean body\?\n  valid: its columns: body, solved(?s:.*)--columns prompt=body,answer=solved"
    with pytest.raises(DataError, match=said):
        load_samples(tmp_path / "x.jsonl", columns={"prompt": "bodi", "answer": "solved"})
    with pytest.raises(ConfigError, match=r"'body' is none of our columns(?s:.*)--columns prompt=body"):
        load_samples(tmp_path / "x.jsonl", columns={"body": "prompt"})


def test_tasks_with_data_of_their_own_take_no_columns(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--columns: the task aa_lcr reads data of its own kind"):
        load_data(AA_LCR, tmp_path, columns={"prompt": "question"}, options=AA_LCR.options)


CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "I live in Oslo."},
    {"role": "assistant", "content": "Noted."},
    {"role": "user", "content": [{"type": "text", "text": "Where do I live?"}]},
]
TRANSCRIPT = "Be brief.\n\nUser: I live in Oslo.\n\nAssistant: Noted.\n\nUser: Where do I live?\n\nAssistant:"


def test_chats(tmp_path: Path) -> None:
    data = load_samples(write(tmp_path / "x.jsonl", [{"messages": CHAT, "answer": "Oslo"}]))
    (sample,) = data.samples
    assert sample.prompt == TRANSCRIPT and sample.answer == "Oslo"
    assert [turn["role"] for turn in sample.messages] == ["system", "user", "assistant", "user"]
    assert sample.messages[-1]["content"] == "Where do I live?" and "messages" not in sample.columns


def test_the_assistants_last_turn_is_the_answer(tmp_path: Path) -> None:
    shared = [{"from": "human", "value": "Where is Oslo?"}, {"from": "gpt", "value": "In Norway"}]
    data = load_samples(write(tmp_path / "x.jsonl", [{"conversations": shared}]))
    assert [(s.prompt, s.answer, s.turns) for s in data.samples] == [("Where is Oslo?", "In Norway", ())]
    assert "the answers are the assistant's last turns" in data.notes
    both = load_samples(write(tmp_path / "y.jsonl", [{"conversations": shared, "answer": "Norway"}]))
    assert both.samples[0].prompt == "Where is Oslo?" and both.samples[0].answer == "Norway"
    assert any("left out" in note for note in both.notes)


def test_a_chat_in_a_csv_cell(tmp_path: Path) -> None:
    data = load_samples(write(tmp_path / "x.csv", as_csv([{"messages": json.dumps(CHAT), "answer": "Oslo"}])))
    assert data.samples[0].prompt == TRANSCRIPT and len(data.samples[0].turns) == 4


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": [{"role": "ghost", "content": "x"}], "answer": "x"}, "row 0: a message has the role 'ghost'"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}], "answer": "x"}, "only text can be asked"),
        ({"messages": [{"role": "user", "content": "q?"}]}, "no column answer; its columns: messages"),
        ({"messages": [{"role": "system", "content": "q?"}], "answer": "x"}, "the chat asks nothing"),
        ({"prompt": ["one", "two"], "answer": "x"}, "row 0: the prompt is list, not text"),
    ],
)
def test_chats_that_cannot_be_asked(tmp_path: Path, row: dict, said: str) -> None:
    with pytest.raises(DataError, match=said):
        load_samples(write(tmp_path / "x.jsonl", [row]))


def test_depths_are_measured_where_every_answer_stands_once(tmp_path: Path) -> None:
    rows = [{"prompt": "x" * 30 + f" teal{i} " + "y" * 64, "answer": f"teal{i}"} for i in range(3)]
    data = load_samples(write(tmp_path / "x.jsonl", rows))
    assert {s.depth_percent for s in data.samples} == {30.0} and data.settings == {"depths": "measured"}
    assert 30 < data.samples[0].columns["real_depth"] < 35 and "where the answers stand" in data.notes[0]
    assert QA.locate(data.samples[0]) == (31, 36)
    rows.append({"prompt": "nothing of it", "answer": "teal"})
    data = load_samples(write(tmp_path / "y.jsonl", rows))
    assert {s.depth_percent for s in data.samples} == {0.0} and data.settings == {"depths": "none"}
    assert "one group" in data.notes[0]


def test_a_column_of_depths_is_guessed_only_where_it_holds_percent(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "answer": "a", "depth": depth} for depth in (0, 50)]
    assert [s.depth_percent for s in load_samples(write(tmp_path / "x.jsonl", rows)).samples] == [0.0, 50.0]
    fractions = [row | {"depth": row["depth"] / 100} for row in rows]
    assert load_samples(write(tmp_path / "y.jsonl", fractions)).settings == {"depths": "none"}


def test_results_are_not_data(tmp_path: Path) -> None:
    from infini_eval.results.merge import merge_samples

    run = write_fake_run(tmp_path / "run", FakeRun(depths=(0, 50), per_cell=2))
    with pytest.raises(DataError, match=r"holds the results of a run, not data(?s:.*)infini-eval analyze"):
        load_samples(run)
    merge_samples(run)
    for path in (run, run / "samples.parquet"):
        with pytest.raises(DataError, match="holds the results of a run"):
            load_samples(path)
    pq.read_table(run / "samples.parquet").to_pandas().to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(DataError, match="holds the results of a run"):
        load_samples(tmp_path / "x.csv")
    own = tmp_path / "own"
    own.mkdir()
    pq.write_table(pa.Table.from_pylist(ROWS), own / "samples.parquet")  # the name alone says nothing
    assert shape(load_samples(own).samples) == EXPECTED


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.csv", b"prompt,answer\nq?\n", "line 2: 1 cells, but the first line names 2 columns"),
        ("x.csv", b"prompt,prompt\na,b\n", "has the column 'prompt' more than once"),
        ("x.csv", b"prompt,answer,depth_percent\nq?,a,deep\n", "depth_percent should hold numbers, and holds 'deep'"),
        ("x.csv", b"", "holds no rows"),
        ("x.csv", b"prompt,answer\n\xff\xfe,a\n", "is not UTF-8 text"),
        ("x.jsonl", b'{"prompt": "a"}\n{"prompt": \n', r"line 2 is not JSON"),
        ("x.jsonl", b"[1]\n", "line 1 is no object"),
        ("x.json", b'{"version": 1}', "holds no rows"),
        ("x.json", b"nonsense", "is not JSON"),
        ("x.csv.gz", b"not packed", "cannot be read as csv"),
        ("x.csv.zst", b"not packed", "cannot be read as csv"),
        ("x.pkl", b"", "is not a file of rows"),
    ],
)
def test_broken_files(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        load_samples(tmp_path / name)


def test_a_folder_of_several_kinds(tmp_path: Path) -> None:
    write(tmp_path / "x.jsonl", ROWS)
    write(tmp_path / "x.csv", as_csv(ROWS))
    with pytest.raises(DataError, match=r"files of several kinds: x\.csv, x\.jsonl"):
        load_samples(tmp_path)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, list[dict]], None]:
    """Stands in for the hub: `hub(file, rows)` puts a file there; only what the patterns ask for is downloaded."""
    there = tmp_path / "there"

    def download(name: str, *, repo_type: str, allow_patterns: list[str]) -> str:
        fetched = tmp_path / "cache" / str(len(allow_patterns))
        for path in there.rglob("*"):
            if path.is_file() and any(path.match(pattern) for pattern in allow_patterns):
                place = fetched / path.relative_to(there)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(path.read_bytes())
        fetched.mkdir(parents=True, exist_ok=True)
        return str(fetched)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    monkeypatch.chdir(tmp_path)
    return lambda name, rows: write(there / name, rows) and None


def test_hub_data_sets_of_text_files_and_configurations(hub: Callable[[str, list[dict]], None]) -> None:
    hub("hard/test.jsonl", ROWS)
    hub("easy/test.jsonl.gz", ROWS[:1])
    hub("dataset_infos.json", [])
    assert shape(load_samples("owner/own:hard").samples) == EXPECTED
    easy = load_samples("owner/own:easy", split="test")
    assert shape(easy.samples) == EXPECTED[:1] and easy.source == "hub:owner/own:easy"
    with pytest.raises(DataError, match=r"no configuration 'none'\n  valid: easy, hard"):
        load_samples("owner/own:none")
