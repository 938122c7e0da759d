"""summary.json against its JSON Schema, which is closed: an undocumented key fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infini_eval.cli.main import main
from infini_eval.reports.analyze import analyze_run
from infini_eval.reports.judged import analyze_questions
from infini_eval.testing.fake_runs import FakeRun, write_fake_run
from infini_eval.testing.tiny_aa_lcr import write_tiny_aa_lcr

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is a dev dependency")
SCHEMA = json.loads((Path(__file__).resolve().parents[2] / "docs" / "summary.schema.json").read_text(encoding="utf-8"))
RUNS = {
    "one length": FakeRun(depths=(0, 50), per_cell=4, accuracy=0.5),
    "several lengths": FakeRun(lengths=(1024, 32768), depths=(0, 50), per_cell=4, accuracy=0.5, jitter=True),
    "without segments": FakeRun(segment_length=None, depths=(0,), per_cell=4),
    "failures": FakeRun(depths=(0, 50), per_cell=4, failed=2),
    "a length without any answer": FakeRun(
        lengths=(1024, 32768), depths=(0, 50), per_cell=4, fails=lambda length, depth, number: length == 32768
    ),
    "another task": FakeRun(depths=(0, 50), per_cell=4, identity={"task": "ruler_vt"}),
    "labels off": FakeRun(depths=(0, 50), per_cell=4, real_depth=lambda depth: 20.0),
    "all right": FakeRun(depths=(0,), per_cell=4, accuracy=1.0),
}


def validator():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    return jsonschema.Draft202012Validator(SCHEMA)


@pytest.mark.parametrize("name", RUNS)
def test_runs_of_every_kind_are_valid(tmp_path, name):
    summary = analyze_run(write_fake_run(tmp_path, RUNS[name])).summary.to_json()
    validator().validate(json.loads(json.dumps(summary, allow_nan=False)))


def test_foreign_and_interrupted_runs_are_valid(tmp_path):
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "a.csv").write_text("depth_percent,answer,generation_text\n0,12,12\n50,13,14\n")
    validator().validate(analyze_run(tmp_path / "foreign").summary.to_json())
    validator().validate(analyze_run(write_fake_run(tmp_path / "run", RUNS["one length"], keep=3)).summary.to_json())


def judged_run(folder: Path, *flags: str) -> dict:
    """summary.json of a miniature AA-LCR run, judged or not."""
    data = write_tiny_aa_lcr(folder / "data")
    given = ["--task", "aa_lcr", "--backend", "fake", "--model", "m", "--eval_dataset_path", str(data), "--quiet"]
    assert main(["run", *given, "--save_path", str(folder / "run"), *flags]) == 0
    return json.loads((folder / "run" / "summary.json").read_text())


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--judge", "--backend fake --model j --quiet"],
        ["--judge", "--backend fake --model j --quiet --fake-near-miss-rate 1 --protocol v1.1"],
        ["--fake-failure-rate", "0.6", "--judge", "--backend fake --model j --quiet --fake-failure-rate 0.5"],
    ],
    ids=["not judged", "judged", "unparsed", "failed"],
)
def test_judged_runs_are_valid_and_closed(tmp_path, flags):
    summary = judged_run(tmp_path, *flags)
    validator().validate(summary)
    assert list(validator().iter_errors({**summary, "surprise": 1}))
    for judge in summary["judges"]:
        assert list(validator().iter_errors({**summary, "judges": [{**judge, "surprise": 1}]}))


def test_two_judges_and_another_tools_answers_are_valid(tmp_path):
    judged_run(tmp_path, "--judge", "--backend fake --model j --quiet --judge-name a")
    run = tmp_path / "run"
    assert main(["judge", str(run), "--backend", "fake", "--model", "k", "--quiet", "--judge-name", "b"]) == 0
    assert len(json.loads((run / "summary.json").read_text())["agreement"]) == 1
    validator().validate(json.loads((run / "summary.json").read_text()))
    (tmp_path / "theirs.json").write_text('[{"question": "Q", "answer": "a", "response": "b"}]')
    validator().validate(analyze_questions(tmp_path / "theirs.json").summary.to_json())


def test_the_schema_is_closed(tmp_path):
    summary = analyze_run(write_fake_run(tmp_path, RUNS["one length"])).summary.to_json()
    assert list(validator().iter_errors({**summary, "surprise": 1}))
    assert list(validator().iter_errors({key: value for key, value in summary.items() if key != "verdict"}))
