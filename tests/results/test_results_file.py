"""The JSON file of --results_file: its figures, and that it can be written is known beforehand."""

from __future__ import annotations

import json

import pytest

from infini_eval.errors import RunFolderError
from infini_eval.records import RunManifest
from infini_eval.results.manifest import open_run, read_manifest
from infini_eval.results.merge import merge_samples
from infini_eval.results.results_file import ResultsFile
from infini_eval.results.samples import SampleWriter, replica_name


def row(key, *, depth=50.0, length=1024, status="ok", correct=1.0, **more):
    correct = None if status == "failed" else correct
    ours = {"sample_key": key, "id": key, "status": status, "correct": correct}
    return {**ours, "context_length": length, "depth_percent": depth, **more}


def write(folder, *replicas):
    for number, rows in enumerate(replicas):
        with SampleWriter(folder, replica_name(number)) as writer:
            for record in rows:
                writer.write(record)


def test_results_file(tmp_path):
    identity = {"seed": 42, "num_samples": 2, "ckpt": "sha"}
    environment = {"ckpt_path": "./ckpt", "eval_dataset_path": "data/x"}
    open_run(tmp_path, RunManifest(identity, {}, environment, 5))
    write(
        tmp_path,
        [row("a", depth=50), row("b", depth=50, correct=0.0), row("c", depth=0), row("d", depth=0, status="failed")],
    )
    path = tmp_path / "deep" / "er" / "results.json"
    ResultsFile(path).check()
    assert path.parent.is_dir()
    assert not path.exists()
    merge_samples(tmp_path)
    ResultsFile(path).write(tmp_path, read_manifest(tmp_path))
    data = json.loads(path.read_text())
    assert data["depth_results"] == [
        {"depth": 0.0, "correct": 1, "total": 1, "accuracy": 1.0},
        {"depth": 50.0, "correct": 1, "total": 2, "accuracy": 0.5},
    ]
    timestamp = data["evaluation_summary"].pop("timestamp")
    assert timestamp.endswith("+00:00")
    assert data["evaluation_summary"] == {
        "checkpoint_path": "./ckpt", "dataset_path": "data/x", "num_samples": 2, "seed": 42,
        "overall_accuracy": 2 / 3, "total_correct": 2, "total_samples": 3,
    }  # fmt: skip
    ResultsFile(path, failed_as_wrong=True).write(tmp_path, read_manifest(tmp_path))
    assert json.loads(path.read_text())["evaluation_summary"]["overall_accuracy"] == 0.5


def test_results_file_is_checked_before_the_evaluation(tmp_path):
    (tmp_path / "file").write_text("keep")
    ResultsFile(tmp_path / "file").check()
    assert (tmp_path / "file").read_text() == "keep"
    for bad in (tmp_path, tmp_path / "file" / "x.json"):
        with pytest.raises(RunFolderError, match="cannot"):
            ResultsFile(bad).check()
