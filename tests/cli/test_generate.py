"""The commands: generate writes what it says, byte for byte again; check names defects; prebuilt data are as said."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infini_eval.cli.main import main
from infini_eval.data.passkey import validate
from infini_eval.data.reading import load_samples
from infini_eval.data.tokenizer import load_tokenizer
from infini_eval.distributed.progress import Countdown

ROOT = Path(__file__).resolve().parents[2]
TOKENIZER = str(ROOT / "checkpoints" / "infini-demo" / "tokenizer")
PREBUILT = ROOT / "examples" / "infinite-context-length" / "data"
FILE = "train-00000-of-00001.parquet"
SCHEMA = ["id", "prompt", "answer", "context_length", "token_count", "num_shots", "num_digits", "depth_percent"]


def generate(*arguments: str) -> int:
    return main(["generate", "--tokenizer_path", TOKENIZER, *arguments])


def test_same_arguments_same_bytes(tmp_path: Path) -> None:
    common = ("--context_length", "600", "--depths", "0,50,100", "--num_prompts", "3", "--quiet")
    for folder, workers in (("a", "1"), ("b", "3")):
        assert generate(*common, "--workers", workers, "--save_path", str(tmp_path / folder)) == 0
    assert (tmp_path / "a" / FILE).read_bytes() == (tmp_path / "b" / FILE).read_bytes()
    assert generate(*common, "--seed", "1", "--save_path", str(tmp_path / "c")) == 0
    assert (tmp_path / "a" / FILE).read_bytes() != (tmp_path / "c" / FILE).read_bytes()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [FILE]


def test_schema_of_the_1k_set(tmp_path: Path) -> None:
    assert (
        generate(
            "--context_length",
            "512",
            "--depth_percent",
            "10",
            "20",
            "--num_prompts",
            "2",
            "--save_path",
            str(tmp_path / "x.parquet"),
        )
        == 0
    )
    schema = pq.read_schema(tmp_path / "x.parquet")
    assert schema.names[:8] == SCHEMA
    assert [schema.field(name).type for name in SCHEMA[2:]] == [pa.int64()] * 6
    assert str(tmp_path).encode() not in (tmp_path / "x.parquet").read_bytes()


def test_the_settings_stand_in_the_file(tmp_path: Path) -> None:
    flags = ("--context_length", "512", "--depths", "0,100", "--num_prompts", "1", "--num_digits", "4,5")
    assert generate(*flags, "--length-includes-answer", "yes", "--save_path", str(tmp_path), "--quiet") == 0
    settings = json.loads(pq.ParquetFile(tmp_path / FILE).metadata.metadata[b"infini_eval"])
    assert (settings["context_lengths"], settings["depths"], settings["num_digits"]) == ([512], [0, 100], [4, 5])
    assert (settings["task"], settings["haystack"], settings["length_includes_answer"]) == ("passkey", "english", True)
    assert settings["tokenizer_hash"] == load_tokenizer(TOKENIZER).fingerprint


def test_the_script_of_the_guide_writes_saved_folders(tmp_path: Path) -> None:
    script = ROOT / "examples" / "infinite-context-length" / "generate_data.py"
    command = [
        sys.executable,
        str(script),
        "--context_length",
        "512",
        "--depth_percent",
        "50",
        "--num_prompts",
        "2",
        "--tokenizer_path",
        TOKENIZER,
        "--id",
        "7",
        "--haystack_dir",
        "filler",
        "--is_exact_context_length",
        "yes",
        "--is_padding",
        "no",
        "--is_eval",
        "yes",
        "--num_shots",
        "1",
        "--num_digits",
        "3",
        "--save_path",
        str(tmp_path),
        "--is_push_to_hub",
        "no",
    ]
    for _ in range(2):  # the second run replaces the first one's folder
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.iterdir()
    assert folder.name == "needle_eval_data_and_512_ctx_and_depth_50_and_id_7_and_num_shots_1"
    data = load_samples(folder, num_shots=1)
    assert len(data.samples) == 2 and validate(data.samples) == []
    assert {load_tokenizer(TOKENIZER).count(sample.prompt) for sample in data.samples} == {512}


def test_excluded_keys(tmp_path: Path) -> None:
    common = (
        "--context_length",
        "512",
        "--depths",
        "50",
        "--num_prompts",
        "8",
        "--num_digits",
        "1",
        "--haystack_dir",
        "filler",
        "--quiet",
    )
    assert generate(*common, "--save_path", str(tmp_path / "a")) == 0
    (left,) = set("123456789") - {s.answer for s in load_samples(tmp_path / "a").samples}
    small = (*common[:5], "1", *common[6:])
    assert generate(*small, "--check_key_in_dataset", str(tmp_path / "a"), "--save_path", str(tmp_path / "b")) == 0
    assert [s.answer for s in load_samples(tmp_path / "b").samples] == [left]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--depth_percent", "101"), "outside 0..100"),
        (("--depths", "0:50"), "not a list of depths"),
        (("--context_length", "60"), "tokens are too few"),
        (("--num_digits", "0"), "not a number of digits"),
        (("--haystack_dir", "/nowhere"), "no haystack '/nowhere'"),
        (("--tokenizer_path", "/nowhere"), "no tokenizer found"),
        (("--needle-segment", "2"), "--segment-length"),
        (("--num_prompts", "10", "--num_digits", "1"), "no key of 1 digit"),
        (("--check_key_in_dataset", "/nowhere"), "no data set at /nowhere"),
        (("--char-count", "1000"), "needed once"),
        (
            ("--task", "niah", "--option", "needle=" + "word " * 900, "--option", "question=Which?"),
            "tokens are too few",
        ),
    ],
)
def test_users_mistakes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    try:
        status = (
            generate("--context_length", "600", "--depths", "50", "--save_path", str(tmp_path), *arguments)
            if "--depth_percent" not in arguments
            else generate("--context_length", "600", "--save_path", str(tmp_path), *arguments)
        )
    except SystemExit as stopped:
        status = stopped.code
    assert status == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("x")
    for place in ("file", "file/below"):
        for kind in ("hf", "parquet"):
            assert generate("--context_length", "600", "--format", kind, "--save_path", str(tmp_path / place)) == 2
            assert f"{tmp_path / 'file'} is a file" in capsys.readouterr().err
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    if not os.access(closed, os.W_OK):  # root may write anywhere
        assert generate("--context_length", "600", "--save_path", str(closed)) == 2
        assert "no right to write" in capsys.readouterr().err


def test_nothing_unfinished_is_left(tmp_path: Path) -> None:
    words = ("--option", "needle=It is grass.", "--option", "question=What is it?", "--option", "expected=green")
    flags = ("--task", "niah", *words, "--haystack_dir", "filler", "--context_length", "600", "--depths", "50")
    assert generate(*flags, "--save_path", str(tmp_path)) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_size_in_characters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--task", "niah", "--char-count", "4000", "9000", "--depths", "random", "--num_prompts", "2")
    assert generate(*flags, "--save_path", str(tmp_path)) == 0
    assert "note: 4,000 characters of english are" in capsys.readouterr().out
    samples = load_samples(tmp_path).samples
    assert [round(len(sample.prompt) / 1_000) for sample in samples] == [4, 4, 9, 9]
    assert all(sample.context_length == sample.columns["token_count"] for sample in samples)


def test_a_pool_that_is_too_small_is_said_before_it_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--context_length", "600", "--depths", "50", "--num_prompts", "60", "--pool-tokens", "8k")
    assert generate(*flags, "--save_path", str(tmp_path / "a")) == 0
    said = capsys.readouterr().err
    assert "warning: 60 haystacks of 600 tokens are asked for" in said and re.search(
        r"holds \d\d without overlap", said
    )
    assert "pass --pool-tokens 51872" in said
    assert generate(*flags[:-1], "51872", "--save_path", str(tmp_path / "b")) == 0
    assert capsys.readouterr().err == ""
    assert generate(*flags, "--haystack_dir", "filler", "--num_digits", "9", "--save_path", str(tmp_path / "c")) == 0
    assert "the text repeats itself" in capsys.readouterr().err
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("The green grass grows by the blue river and nobody sees it. " * 200)
    assert generate(*flags, "--haystack_dir", str(tmp_path / "text"), "--save_path", str(tmp_path / "d")) == 0
    said = capsys.readouterr().err
    assert "a text of 51,872 tokens is enough, with --pool-tokens 51872" in said and str(tmp_path) not in said


def test_labels_that_are_off_are_warned_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--context_length", "600", "--depths", "10", "--num_prompts", "2", "--segment-length", "128")
    assert generate(*flags, "--needle-segment", "3", "--save_path", str(tmp_path)) == 0
    said = capsys.readouterr().err
    assert "in 2 of 2 prompts the needle stands more than 5 points from depth_percent (42-600-10-0 at" in said
    assert main(["data", "check", str(tmp_path), "--tokenizer", TOKENIZER]) == 0
    assert "warning: off_label: 2 sample(s)" in capsys.readouterr().out
    assert generate(*flags, "--save_path", str(tmp_path)) == 0
    assert main(["data", "check", str(tmp_path), "--tokenizer", TOKENIZER]) == 0
    said = capsys.readouterr()
    assert "off_label" not in said.out and said.err == ""


def test_check_knows_wrong_lengths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--context_length", "600", "--depths", "50", "--num_prompts", "2", "--quiet")
    assert generate(*flags, "--save_path", str(tmp_path)) == 0
    table = pq.read_table(tmp_path / FILE)
    wrong = table.set_column(table.column_names.index("token_count"), "token_count", pa.array([600, 599]))
    pq.write_table(wrong, tmp_path / "wrong.parquet")
    assert main(["data", "check", str(tmp_path / "wrong.parquet"), "--tokenizer", TOKENIZER]) == 1
    assert "DEFECT wrong_length: 1 sample(s)" in capsys.readouterr().out
    pq.write_table(wrong.drop_columns(["tokenizer_hash"]), tmp_path / "foreign.parquet")
    assert main(["data", "check", str(tmp_path / "foreign.parquet"), "--tokenizer", TOKENIZER]) == 0
    assert "counted with another tokenizer" in capsys.readouterr().out


def test_check_counts_and_names_defects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        generate(
            "--context_length",
            "640",
            "--depths",
            "0,100",
            "--num_prompts",
            "3",
            "--quiet",
            "--save_path",
            str(tmp_path),
        )
        == 0
    )
    assert main(["data", "check", str(tmp_path), "--tokenizer", TOKENIZER, "--segment-length", "128"]) == 0
    shown = capsys.readouterr().out
    assert "640" in shown and "phase 127, 3 on a border" in shown and "no defects found" in shown
    table = pq.read_table(tmp_path / FILE)
    doubled = pa.concat_tables([table, table.slice(0, 1)])
    pq.write_table(doubled, tmp_path / "bad.parquet")
    assert main(["data", "check", str(tmp_path / "bad.parquet")]) == 1
    assert "DEFECT duplicate_id: 1 sample(s)" in capsys.readouterr().out
    assert main(["data", "check", str(tmp_path / "nothing")]) == 2


@pytest.mark.parametrize(
    ("folder", "label", "tokens"),
    [
        ("demo-1024-passkey-eval", 1024, 1008),
        ("demo-1024-border-passkey-eval", 1024, 1024),
        ("demo-16k-passkey-eval", 16384, 16368),
        ("demo-16k-border-passkey-eval", 16384, 16384),
    ],
)
def test_prebuilt_data(folder: str, label: int, tokens: int) -> None:
    data = load_samples(PREBUILT / folder, num_shots=0)
    samples = data.samples
    assert len(samples) == 210 and validate(samples) == []
    assert {s.depth_percent for s in samples} == set(range(0, 101, 5))
    assert {s.context_length for s in samples} == {label}
    assert {s.columns["token_count"] for s in samples} == {tokens}
    assert (
        len({s.answer for s in samples})
        == len({s.id for s in samples})
        == len({s.columns["haystack_hash"] for s in samples})
        == 210
    )
    tokenizer = load_tokenizer(TOKENIZER)
    assert {s.columns["tokenizer_hash"] for s in samples} == {tokenizer.fingerprint}
    assert {tokenizer.count(sample.prompt) for sample in samples[:: 50 if label > 2000 else 1]} == {tokens}


@pytest.mark.parametrize("inside", [True, False])
def test_prebuilt_data_are_made_by_their_command(tmp_path: Path, inside: bool) -> None:
    """The command in data/README.md gives the committed file: the same rows; with the same pyarrow the same bytes."""
    folder = "demo-1024-passkey-eval" if inside else "demo-1024-border-passkey-eval"
    assert (
        generate(
            "--context_length",
            "1024",
            "--depths",
            "0:100:5",
            "--num_prompts",
            "10",
            "--num_digits",
            "4,5",
            "--seed",
            "1",
            "--quiet",
            "--length-includes-answer",
            "yes" if inside else "no",
            "--id",
            "inside" if inside else "border",
            "--save_path",
            str(tmp_path),
        )
        == 0
    )
    made, kept = pq.ParquetFile(tmp_path / FILE), pq.ParquetFile(PREBUILT / folder / FILE)
    assert made.read().equals(kept.read())
    if made.metadata.created_by == kept.metadata.created_by:
        assert (tmp_path / FILE).read_bytes() == (PREBUILT / folder / FILE).read_bytes()


def test_what_is_made_is_counted_with_its_total(monkeypatch, tmp_path: Path):
    seen = []
    monkeypatch.setattr(Countdown, "set", lambda self, done, total: seen.append((done, total)))
    flags = ["--context_length", "512", "1024", "--depths", "0,50", "--num_prompts", "2", "--save_path", str(tmp_path)]
    assert generate("--haystack_dir", "filler", *flags) == 0
    assert seen == [(number, 8) for number in range(9)]
