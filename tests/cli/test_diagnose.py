"""`infini-eval diagnose` and `run_passkey_eval.py --diagnose` on the shipped checkpoint: its story holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infini_eval.cli.diagnose import PER_DEPTH, first_of_each_depth
from infini_eval.cli.main import main
from infini_eval.records import Sample

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINT = ["--ckpt-path", str(ROOT / "checkpoints/infini-demo")]
DATA = ROOT / "examples/infinite-context-length/data/demo-1024-passkey-eval"
FLAGS = [*CHECKPOINT, "--eval_dataset_path", str(DATA), "--depths", "0,50", "--num_samples", "2"]


def test_the_shipped_checkpoints_story(tmp_path, capsys):
    """One head carries the answer: without its reads none is right, with only its reads all are."""
    assert main(["diagnose", *FLAGS, "--output", str(tmp_path / "out" / "d.json")]) == 0
    text = capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "d.json").read_text())
    assert report["samples"] == report["correct"] == 4 and report["verdict"]["label"] == "works"
    first, second = report["heads"][:2]
    assert (first["layer"], first["head"]) == (1, 3)
    assert first["answer_loses"] > 5 > 0.5 > second["answer_loses"]
    carriers = {(row["reading"], len(row["heads"])): row["correct"] for row in report["carriers"]}
    assert carriers[("all but", 0)] == 4 and carriers[("only", 0)] == 0
    assert carriers[("only", 1)] == 4 and carriers[("all but", 1)] == 0
    assert report["evidence_right"]["written"]["mean"] > 5
    assert "VERDICT      works" in text and "layer 1 head 3" in text


def test_a_needle_in_the_questions_segment_is_nothing_to_diagnose(capsys):
    assert main(["diagnose", *FLAGS[:-3], "100", *FLAGS[-2:]]) == 2
    assert "none of 2 prompts has its needle in an earlier segment" in capsys.readouterr().err


def test_after_an_evaluation(tmp_path, capsys):
    flags = [*FLAGS, "--save_path", str(tmp_path / "run"), "--device", "cpu", "--quiet", "--diagnose"]
    assert main(["passkey", *flags]) == 0
    report = json.loads((tmp_path / "run" / "diagnosis.json").read_text())
    assert report["samples"] == 4 and report["chosen"] == "wrong answers first"
    assert (tmp_path / "run" / "diagnosis.txt").read_text().strip() in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [[], [7, 8, 9]])
def test_wrong_answers_are_chosen_first(wrong: list[int]) -> None:
    samples = [Sample(str(number), f"prompt {number}", "1", depth) for depth in (0, 50) for number in range(10)]
    keys = {sample.key for sample in samples if int(sample.id) in wrong}
    chosen = first_of_each_depth(samples, keys)
    assert [sample.depth_percent for sample in chosen] == [0] * PER_DEPTH + [50] * PER_DEPTH
    assert {int(sample.id) for sample in chosen[:PER_DEPTH]} == ({7, 8, 9, 0} if wrong else {0, 1, 2, 3})
