"""Runs as logs of Inspect: what stands in them, and (where inspect-ai is installed) that its own readers open them."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

import infini_eval
from infini_eval.cli.main import main
from infini_eval.testing.fake_runs import FakeRun, write_fake_run

FEW = "a few words"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four questions of two lengths; the second has two references."""
    rows = [
        {
            "id": f"q{i}",
            "prompt": f"{FEW} {i}, and a key: {1000 + i}. The key?",
            "answer": 1000 + i,
            "depth_percent": 50,
        }
        | {
            "context_length": (1024, 2048)[i % 2],
            "outputs": json.dumps([str(1000 + i), "x"] if i == 1 else [str(1000 + i)]),
        }
        for i in range(4)
    ]
    file = tmp_path / "data.csv"
    with file.open("w", newline="") as out:
        writer = csv.DictWriter(out, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return file


@pytest.fixture
def run(data: Path, tmp_path: Path) -> Path:
    infini_eval.evaluate("fake:any", data=data, save_path=tmp_path / "runs" / "one", temperature=0.5, quiet=True)
    return tmp_path / "runs" / "one"


def exported(place: Path) -> dict[str, Any]:
    (file,) = place.glob("*.json")
    log: dict[str, Any] = json.loads(file.read_text())
    return log


def test_a_log_has_prompts_answers_scores_and_metadata(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "logs"
    assert main(["export", str(run), "--format", "inspect", "--output", str(place)]) == 0
    said = capsys.readouterr().out
    assert "4 samples\n" in said and f"inspect view --log-dir {place}" in said
    log = exported(place)
    assert log["status"] == "success" and log["eval"]["task"] == "passkey" and log["version"] == 2
    assert log["eval"]["model_generate_config"] == {
        "max_tokens": 15, "temperature": 0.5, "top_p": 1.0, "seed": 42
    }  # fmt: skip
    assert log["eval"]["dataset"]["sample_ids"] == [sample["id"] for sample in log["samples"]]
    assert sorted(log["eval"]["dataset"]["sample_ids"]) == ["q0", "q1", "q2", "q3"]
    sample = next(one for one in log["samples"] if one["id"] == "q1")
    assert sample["input"] == f"{FEW} 1, and a key: 1001. The key?" and sample["target"] == ["1001", "x"]
    assert [message["role"] for message in sample["messages"]] == ["user", "assistant"]
    assert sample["output"]["choices"][0]["stop_reason"] in ("stop", "max_tokens")
    assert sample["scores"]["exact_digits"] == {"value": 1.0, "answer": "1001"}
    assert sample["metadata"]["context_length"] == 2048 and sample["metadata"]["depth_percent"] == 50


def test_its_metrics_are_the_means_of_the_samples_and_the_reports_numbers_stand_beside(tmp_path: Path) -> None:
    fake = FakeRun(lengths=(1024, 2048), depths=(0, 50), per_cell=4, accuracy=0.5, failed=1)
    run = write_fake_run(tmp_path / "run", fake)
    infini_eval.export(run, format="inspect", output=tmp_path / "logs")
    log = exported(tmp_path / "logs")
    scored = [one for one in log["samples"] if one["scores"]]
    values = [one["scores"]["exact_digits"]["value"] for one in scored]
    first = log["results"]["scores"][0]
    assert (log["results"]["total_samples"], log["results"]["completed_samples"]) == (16, 15) and len(scored) == 15
    mean = sum(values) / len(values)
    assert first["name"] == "exact_digits" and first["metrics"]["mean"]["value"] == pytest.approx(mean)
    assert first["metrics"]["stderr"]["value"] == pytest.approx((mean * (1 - mean) / 14) ** 0.5)
    at = [one["scores"]["exact_digits"]["value"] for one in scored if one["metadata"]["context_length"] == 2048]
    assert first["metrics"]["mean_2048"]["value"] == pytest.approx(sum(at) / len(at))
    stats = infini_eval.analyze(run).summary.by_context_length[0].summary_stats
    assert log["results"]["metadata"]["accuracy/passkey/1024"] == pytest.approx(stats.average_accuracy)
    (failed,) = (one for one in log["samples"] if "error" in one)
    assert failed["error"]["message"] == "out of memory" and failed["output"]["choices"] == []


def test_prompts_are_excerpts_where_the_data_are_gone_changed_or_not_wanted(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = data.read_text()
    moved = data.rename(tmp_path / "moved.csv")
    command = ["export", str(run), "--format", "inspect", "--output"]
    assert main([*command, str(tmp_path / "gone")]) == 0
    assert "none with a prompt" in capsys.readouterr().out
    sample = exported(tmp_path / "gone")["samples"][0]
    assert sample["metadata"]["input_is"] == "the text around the needle"
    assert main([*command, str(tmp_path / "found"), "--data", str(moved)]) == 0
    assert "with a prompt" not in capsys.readouterr().out
    moved.write_text(text.replace(f"{FEW} 3", "other words 3"))
    assert main([*command, str(tmp_path / "changed"), "--data", str(moved)]) == 0
    assert "3 with a prompt" in capsys.readouterr().out
    assert main([*command, str(tmp_path / "short"), "--prompts", "excerpt"]) == 0
    assert "with a prompt" not in capsys.readouterr().out
    assert main([*command, str(tmp_path / "x"), "--data", str(tmp_path / "none.csv")]) == 2
    assert "none.csv cannot be read" in capsys.readouterr().err


def test_an_interrupted_run_and_ids_that_come_again(tmp_path: Path) -> None:
    run = write_fake_run(tmp_path / "run", FakeRun(depths=(0,), per_cell=4), keep=3)
    (file,) = (run / "samples").glob("*.jsonl")
    lines = [json.loads(line) | {"id": "same"} for line in file.open()]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    infini_eval.export(run, format="inspect", output=tmp_path / "logs")
    infini_eval.export(run, format="inspect", output=tmp_path / "logs")  # replaced, not doubled
    log = exported(tmp_path / "logs")
    assert log["status"] == "cancelled" and log["eval"]["config"]["epochs"] == 3
    assert [(one["id"], one["epoch"]) for one in log["samples"]] == [("same", 1), ("same", 2), ("same", 3)]


def test_inspects_own_readers_open_it(run: Path, tmp_path: Path) -> None:
    logs = pytest.importorskip("inspect_ai.log", reason="inspect-ai brings 35 packages: scripts/harnesses.sh inspect")
    infini_eval.export(
        run, write_fake_run(tmp_path / "two", FakeRun(failed=2)), format="inspect", output=tmp_path / "l"
    )
    listed = logs.list_eval_logs(str(tmp_path / "l"))
    assert len(listed) == 2
    for info in listed:
        head, whole = logs.read_eval_log(info, header_only=True), logs.read_eval_log(info)
        assert head.results.scores[0].metrics["mean"].value == whole.results.scores[0].metrics["mean"].value
        samples = list(logs.read_eval_log_samples(info, all_samples_required=True))
        assert len(samples) == whole.results.total_samples == len(whole.samples)
        keys = {sample.metadata["sample_key"] for sample in samples}
        assert len(keys) == len(samples)
        hashes = {hashlib.sha256(str(sample.input).encode()).hexdigest() for sample in samples}
        if head.eval.task_display_name.endswith("one"):
            assert hashes == {sample.metadata["prompt_sha256"] for sample in samples}
