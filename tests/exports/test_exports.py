"""Exports read back with the tools that they are for, as far as these are installed; services are never asked."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import infini_eval
from infini_eval.api import registry
from infini_eval.cli.main import main
from infini_eval.errors import BackendError, ConfigError, DataError
from infini_eval.testing.fake_runs import FakeRun, write_fake_run

LENGTHS = (1024, 2048)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    fake = FakeRun(lengths=LENGTHS, depths=(0, 50), per_cell=4, failed=1, name="0.7M <Infini>")
    return write_fake_run(tmp_path / "results" / "on", fake)


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    """Two steps of one training run, the later one better."""
    for step, accuracy in ((100, 0.2), (200, 1.0)):
        identity = {"checkpoint": {"path": f"models/series/{step}"}}
        fake = FakeRun(depths=(0, 50), per_cell=20, accuracy=accuracy, identity=identity)
        write_fake_run(tmp_path / "training" / f"step-{step}", fake)
    return tmp_path / "training"


def test_every_name_is_known_and_an_unknown_one_lists_them(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert {"csv", "parquet", "lm_eval", "tensorboard", "mlflow", "wandb"} <= set(registry.names("exports"))
    assert main(["export", str(run), "--format", "tensorbord"]) == 2
    assert "unknown export 'tensorbord'; did you mean tensorboard?" in capsys.readouterr().err
    assert all(registry.export(name).about.startswith(name.replace("_", "-")) for name in registry.names("exports"))


def test_csv_has_every_sample_and_is_results_again(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_fake_run(tmp_path / "results" / "other", FakeRun(depths=(25,), per_cell=3, seed=5))
    place = tmp_path / "out" / "all.csv"
    assert main(["export", str(tmp_path / "results"), "--format", "csv", "--output", str(place)]) == 0
    assert "all.csv: 19 samples of 2 run(s)" in capsys.readouterr().out
    with place.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == ["on"] * 16 + ["other"] * 3
    assert {row["run_model"] for row in rows} == {"0.7M <Infini>", "0.7M Infini-Attention"}
    ours = {r["sample_key"]: r for r in map(json.loads, (run / "samples" / "replica0.jsonl").read_text().splitlines())}
    for row in rows[:16]:
        assert row["generation_text"] == ours[row["sample_key"]]["generation_text"]
        assert row["prompt_sha256"] == ours[row["sample_key"]]["prompt_sha256"]
    assert infini_eval.analyze(place.parent).summary.total_samples == 18  # one failed
    with pytest.raises(DataError, match="holds the results of a run, not data"):
        infini_eval.evaluate("fake:any", data=place)


def test_parquet_keeps_types(run: Path, tmp_path: Path) -> None:
    result = infini_eval.analyze(run)
    result.export("parquet", tmp_path / "x.parquet")
    table = pq.read_table(tmp_path / "x.parquet")
    assert table.num_rows == 16 and str(table.schema.field("depth_percent").type) in ("double", "int64")
    assert str(table.schema.field("needle_straddles_border").type) == "bool"


def test_runs_with_columns_of_different_types_become_one_table(tmp_path: Path) -> None:
    for name, column in (("a", 1), ("b", "one")):
        folder = write_fake_run(tmp_path / "runs" / name, FakeRun(depths=(0,), per_cell=2))
        lines = [json.loads(line) | {"topic": column} for line in (folder / "samples/replica0.jsonl").open()]
        (folder / "samples/replica0.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    infini_eval.export(tmp_path / "runs", format="parquet", output=tmp_path / "x.parquet")
    assert pq.read_table(tmp_path / "x.parquet").column("topic").to_pylist() == ["1", "1", "one", "one"]


def test_lm_eval_files(run: Path, tmp_path: Path) -> None:
    """The keys that lm_eval/result_schema.py names, with means and standard errors of the samples' own scores."""
    infini_eval.export(run, format="lm-eval", output=tmp_path / "out")
    folder = tmp_path / "out" / "0.7M_Infini"
    (file,) = folder.glob("results_*.json")
    assert file.name == "results_2025-08-14T14-30-22.000000.json"
    found = json.loads(file.read_text())
    names = [f"passkey_{length}" for length in LENGTHS]
    assert list(found["results"]) == names and found["group_subtasks"] == {"passkey": names}
    for name, length in zip(names, LENGTHS, strict=True):
        samples = [json.loads(line) for line in (folder / f"samples_{name}_2025-08-14T14-30-22.000000.jsonl").open()]
        scores = [sample["exact_digits"] for sample in samples]
        mean = sum(scores) / len(scores)
        entry = found["results"][name]
        assert entry["exact_digits,none"] == pytest.approx(mean)
        stderr = (mean * (1 - mean) / (len(scores) - 1)) ** 0.5
        assert entry["exact_digits_stderr,none"] == pytest.approx(stderr)
        assert (
            entry["sample_len"] == found["n-samples"][name]["effective"] == len(scores) == (7 if length == 1024 else 8)
        )
        assert found["higher_is_better"][name] == {"exact_digits": True, "contains": True}
        assert samples[0]["filtered_resps"] == samples[0]["resps"][0] and len(samples[0]["prompt_hash"]) == 64
        assert set(samples[0]["metrics"]) == {"exact_digits", "contains"}
    assert found["model_name_sanitized"] == folder.name and found["config"]["random_seed"] == 42


def test_lm_evals_own_table_reads_it(run: Path, tmp_path: Path) -> None:
    utils = pytest.importorskip("lm_eval.utils", reason="lm-eval is large and pins packages of its own")
    infini_eval.export(run, format="lm-eval", output=tmp_path)
    (file,) = tmp_path.rglob("results_*.json")
    assert "passkey_1024" in utils.make_table(json.loads(file.read_text()))


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    found = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    tensors = {
        tag: [(e.step, float(e.tensor_proto.float_val[0])) for e in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
        if not tag.startswith("report/")
    }
    return found | tensors


def test_tensorboard_has_one_curve_over_checkpoints(checkpoints: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    for _ in range(2):  # exported again, the events replace those of before
        infini_eval.export(checkpoints, format="tensorboard", output=tmp_path / "tb")
    found = scalars(tmp_path / "tb" / "series-memory-on")
    results = [infini_eval.analyze(checkpoints / f"step-{step}").accuracy for step in (100, 200)]
    assert found["accuracy/passkey/1024"] == [(100, pytest.approx(results[0])), (200, pytest.approx(results[1]))]
    curve = scalars(tmp_path / "tb" / "series-memory-on" / "by-depth-200")["accuracy_by_depth/passkey/1024"]
    assert curve == [(0, 100.0), (50, 100.0)]


def test_tensorboard_keeps_runs_apart_that_are_no_series(checkpoints: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    again = write_fake_run(
        checkpoints / "again", FakeRun(depths=(0, 50), identity={"checkpoint": {"path": "models/series/200"}})
    )
    infini_eval.export(checkpoints, format="tensorboard", output=tmp_path / "tb")
    steps = [step for step, _ in scalars(tmp_path / "tb" / "series-memory-on")["accuracy/passkey/1024"]]
    assert steps == [100] and (tmp_path / "tb" / again.name).is_dir() and (tmp_path / "tb" / "step-200").is_dir()


def test_mlflow_into_a_folder(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow-skinny brings 40 packages: no development dependency")
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_ALLOW_FILE_STORE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    (said,) = (infini_eval.export(run, format="mlflow", output=tmp_path / "store") for _ in range(1))
    infini_eval.export(run, format="mlflow", output=tmp_path / "store")  # replaced, not doubled
    assert "mlflow ui --backend-store-uri file:" in said[0]
    client = mlflow.MlflowClient(tracking_uri=(tmp_path / "store").as_uri())
    experiment = client.get_experiment_by_name("infini-eval")
    (found,) = client.search_runs([experiment.experiment_id])
    stats = infini_eval.analyze(run).summary.by_context_length[0].summary_stats
    assert found.data.metrics["accuracy/passkey/1024"] == pytest.approx(stats.average_accuracy)
    assert found.data.params["identity.scorer"] == "exact_digits" and found.data.params["model.parameters"] == "733000"
    assert {file.path for file in client.list_artifacts(found.info.run_id)} == {"report.txt", "summary.json"}
    curve = client.get_metric_history(found.info.run_id, "accuracy_by_depth/passkey/1024")
    assert [point.step for point in curve] == [0, 50] and found.info.status == "FINISHED"


def test_wandb_offline(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb's wheel is 25 MB: no development dependency")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    (said,) = infini_eval.export(run, format="wandb", output=tmp_path / "store")
    (folder,) = (tmp_path / "store" / "wandb").glob("offline-run-*")
    assert said == f"{folder}: wandb sync {folder}"
    (log,) = folder.glob("run-*.wandb")
    content = log.read_bytes()
    assert b"accuracy/passkey/1024" in content and b"exact_digits" in content
    assert list(folder.rglob("accuracy_by_depth*.table.json"))


def test_what_is_missing_is_said_before_the_run(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    asked = [
        "run",
        "--task",
        "qa",
        "--model",
        "fake:any",
        "--eval_dataset_path",
        "none.csv",
        "--save_path",
        str(tmp_path / "r"),
    ]
    if registry.names("exports") and _installed("mlflow"):
        assert main([*asked, "--report-to", "mlflow"]) == 2
        assert "MLFLOW_TRACKING_URI" in capsys.readouterr().err
    assert main([*asked, "--report-to", "csv,nonsense"]) == 2
    assert "unknown export 'nonsense'" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(BackendError, match=r"needs the package 'tensorboard'(?s:.*)infini-eval\[tensorboard\]"):
        infini_eval.export(run, format="tensorboard", output=tmp_path / "tb")


def _installed(name: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(name) is not None


def test_wandb_without_a_key_says_how(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb's wheel is 25 MB: no development dependency")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="has no key of Weights & Biases"):
        registry.export("wandb").ready(None)
    monkeypatch.setenv("WANDB_MODE", "offline")
    registry.export("wandb").ready(None)


def test_report_to_writes_into_the_run_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own.csv").write_text("question,target\nWho?,Ibsen\n")
    asked = ["run", "--task", "qa", "--model", "fake:any", "--quiet", "--report-to", "csv,lm-eval"]
    given = ["--eval_dataset_path", str(tmp_path / "own.csv"), "--save_path", str(tmp_path / "run")]
    assert main([*asked, *given]) == 0
    assert "exported: " in capsys.readouterr().out
    assert (tmp_path / "run" / "results.csv").is_file() and list((tmp_path / "run").rglob("results_*.json"))
    assert (
        infini_eval.analyze(tmp_path / "run").summary.total_samples == 1
    )  # the table beside the records changes nothing
    assert main([*asked, *given]) == 0
    rows = [{"prompt": "Who?", "answer": "Ibsen"}]
    result = infini_eval.evaluate("fake:any", data=rows, task="qa", save_path=tmp_path / "py", report_to=("parquet",))
    assert (result.folder / "results.parquet").is_file()


def test_judged_runs(tmp_path: Path) -> None:
    from support.tiny_aa_lcr import write_tiny_aa_lcr

    data = write_tiny_aa_lcr(tmp_path / "lcr")
    result = infini_eval.evaluate("fake:any", data=data, task="aa_lcr", save_path=tmp_path / "run")
    infini_eval.judge(result.folder, "judge", backend="fake", name="one")
    infini_eval.export(result.folder, format="lm-eval", output=tmp_path / "out")
    (file,) = (tmp_path / "out").rglob("results_*.json")
    (entry,) = json.loads(file.read_text())["results"].values()
    judged = infini_eval.analyze(result.folder).summary.judges[0]
    assert entry["pass@1,one"] == pytest.approx(judged["accuracy"] / 100)


def test_report_to_of_a_judged_run_has_the_verdicts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from support.tiny_aa_lcr import write_tiny_aa_lcr

    data = write_tiny_aa_lcr(tmp_path / "lcr")
    asked = ["run", "--task", "aa_lcr", "--model", "fake:any", "--eval_dataset_path", str(data), "--quiet"]
    given = ["--save_path", str(tmp_path / "run"), "--judge", "--backend fake --model j --judge-name one --quiet"]
    assert main([*asked, *given, "--report-to", "lm-eval"]) == 0
    (file,) = (tmp_path / "run").rglob("results_*.json")
    assert "pass@1,one" in next(iter(json.loads(file.read_text())["results"].values()))
    second = ["--backend", "fake", "--model", "k", "--judge-name", "two", "--quiet", "--report-to", "lm-eval"]
    assert main(["judge", str(tmp_path / "run"), *second]) == 0
    assert "exported: " in capsys.readouterr().out
    assert {"pass@1,one", "pass@1,two"} <= set(next(iter(json.loads(file.read_text())["results"].values())))


def test_an_empty_folder_is_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path), "--format", "csv"]) == 2
    assert "is empty" in capsys.readouterr().err
    (tmp_path / "x").mkdir()
    assert main(["export", str(tmp_path / "none"), "--format", "csv"]) == 2
