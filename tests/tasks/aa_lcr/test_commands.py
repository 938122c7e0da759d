"""aa_lcr from the command line: generate, judge, resume, report; the fake backend as model and as judge."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import infini_eval
from infini_eval.api import registry
from infini_eval.backends import fake
from infini_eval.cli.judge import judge_afterwards
from infini_eval.cli.main import main
from infini_eval.config import EvalConfig, JudgeConfig
from infini_eval.errors import ConfigError
from infini_eval.tasks.aa_lcr import TASK, load, select
from infini_eval.tasks.aa_lcr import judge as aa_lcr_judge
from infini_eval.tasks.aa_lcr.answers import read_generations, write_generations
from infini_eval.tasks.aa_lcr.protocols import PROTOCOLS
from support.limits import PROCESS_S
from support.tiny_aa_lcr import ROWS, write_tiny_aa_lcr

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = ROOT / "examples/aa-lcr"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_tiny_aa_lcr(tmp_path / "data")


def generate(data: Path, folder: Path, *flags: str) -> int:
    given = ["--task", "aa_lcr", "--backend", "fake", "--model", "m", "--eval_dataset_path", str(data), "--quiet"]
    return main(["run", *given, "--save_path", str(folder), *flags])


def judged(source: Path, *flags: str) -> int:
    return main(["judge", str(source), "--backend", "fake", "--model", "j", "--quiet", *flags])


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for path in (folder / "samples").glob("*.jsonl") for line in path.open()]


def test_one_command_generates_and_judges(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert generate(data, run, "--judge", "--backend fake --model j --quiet") == 0
    out = capsys.readouterr().out
    # two of the four questions are about the same documents: three clusters, not four
    assert out.splitlines()[-1].startswith("Accuracy: 100.0%  n=4 answers to 4 questions, 95% interval 41.0 to 100.0")
    made = summary(run)
    judge = made["judges"][0]
    assert (judge["accuracy"], judge["n"], judge["protocol"]) == (100, 4, "v1.0")
    manifest = json.loads((run / "judges" / judge["name"] / "manifest.json").read_text())
    assert manifest["model"]["name"] == "fake (j)"
    assert manifest["identity"]["data_settings"]["protocol"] == "v1.0"
    assert {row["generation_text"].strip() for row in records(run / "judges" / judge["name"])} == {"CORRECT."}


def test_the_judge_from_python_is_the_command(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert generate(data, run) == 0
    result = infini_eval.judge(run, "j", backend="fake", quiet=True)
    before = records(run / "judges" / "v1.0-fake-j")
    assert result.to_json()["judges"][0]["accuracy"] == 100
    assert judged(run) == 0, "the command continues what Python began"
    assert records(run / "judges" / "v1.0-fake-j") == before


def test_in_a_launch_of_several_the_judge_has_a_process_of_its_own(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert generate(data, tmp_path / "run") == 0
    asked = EvalConfig("j", "", "", task="aa_lcr_judge", backend="fake", scorer="judge_verdict", max_new_tokens=64)
    config = JudgeConfig(str(tmp_path / "run"), registry.for_backend(asked))
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    capsys.readouterr()
    assert judge_afterwards(config, 60.0) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("Accuracy: 100.0%  n=4 answers")
    assert judge_afterwards(replace(config, protocol="v9"), 60.0) == 2
    assert "v9" in capsys.readouterr().err


def test_records_never_hold_the_prompt_and_answers_wait_unscored(data: Path, tmp_path: Path) -> None:
    assert generate(data, tmp_path / "run") == 0
    rows = records(tmp_path / "run")
    assert len(rows) == 4
    assert all(row["correct"] is None and row["depth_percent"] is None and row["status"] == "ok" for row in rows)
    assert not any("BEGIN INPUT DOCUMENTS" in json.dumps(row) for row in rows)
    assert summary(tmp_path / "run")["judges"] == []


def test_nothing_is_called_right_or_wrong_before_a_judge_has_spoken(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake, "_said", lambda answer: "" if answer == "Oslo" else answer)
    results = tmp_path / "results.json"
    assert generate(data, tmp_path / "run", "--results_file", str(results)) == 0
    shown = capsys.readouterr()
    assert "4/4 samples" in shown.err
    assert "accuracy" not in shown.out.lower() + shown.err.lower()
    assert json.loads(results.read_text())["evaluation_summary"]["overall_accuracy"] is None


def test_a_question_that_stands_twice_in_the_data_is_asked_once(tmp_path: Path, capsys) -> None:
    data = write_tiny_aa_lcr(tmp_path / "data", [*ROWS, ROWS[0]])
    lines = (data / "AA-LCR_Dataset.csv").read_text().splitlines()
    lines[-1] = lines[1].replace("0,", "4,", 1)
    (data / "AA-LCR_Dataset.csv").write_text("\n".join(lines) + "\n")
    assert generate(data, tmp_path / "run") == 0
    made = summary(tmp_path / "run")
    assert (made["answers"], made["planned"], made["complete"]) == (4, 4, True)
    assert "1 row(s) of the CSV repeat another exactly" in capsys.readouterr().err


def test_failed_answers_count_as_wrong_when_the_judge_is_told_so(data: Path, tmp_path: Path, capsys) -> None:
    assert generate(data, tmp_path / "run", "--fake-failure-rate", "0.6") == 0
    assert judged(tmp_path / "run", "--failed-as-wrong") == 0
    judge = summary(tmp_path / "run")["judges"][0]
    assert judge["counts"]["failed"] > 0
    assert (judge["n"], judge["not_counted"]) == (4, {})
    assert "count as wrong" in capsys.readouterr().out


def test_our_own_grading_notes_are_said_to_be_a_deviation_before_the_judge_is_asked(
    data: Path, tmp_path: Path, capsys
) -> None:
    generate(data, tmp_path / "run")
    capsys.readouterr()
    assert judged(tmp_path / "run", "--protocol", "v1.1") == 0
    shown = capsys.readouterr()
    assert "grading notes in our wording" in shown.err
    assert "DEVIATION: grading notes in our wording" in shown.out.splitlines()[-1]


def test_a_run_goes_on_where_it_stopped_and_its_judge_too(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert generate(data, run, "--fake-failure-rate", "0.6") == 0
    failed = sum(row["status"] == "failed" for row in records(run))
    assert 0 < failed < 4
    assert judged(run) == 0
    first = summary(run)
    assert (first["failed"], first["judges"][0]["n"]) == (failed, 4 - failed)
    before = len(records(run / "judges" / "v1.0-fake-j"))
    assert generate(data, run) == 0
    assert judged(run) == 0
    again = summary(run)
    assert (again["failed"], again["judges"][0]["n"]) == (0, 4)
    assert len(records(run / "judges" / "v1.0-fake-j")) == 4 > before, "verdicts that were there are not asked again"


def test_repeats_may_be_raised_later_and_the_prompt_may_not_change(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert generate(data, run) == 0
    assert generate(data, run, "--option", "repeats=3") == 0
    made = summary(run)
    assert (made["answers"], made["repeats"], made["identical_repeats"]) == (12, 3, 4)
    capsys.readouterr()
    assert generate(data, run, "--option", "prompt=reasoning") == 2
    assert 'prompt: "official" -> "reasoning"' in capsys.readouterr().err


def test_the_reasoning_prompt_is_labelled_a_deviation(data: Path, tmp_path: Path, capsys) -> None:
    assert generate(data, tmp_path / "run", "--option", "prompt=reasoning") == 0
    assert "DEVIATION" in capsys.readouterr().out
    assert summary(tmp_path / "run")["deviation"] is True


def test_unparsed_verdicts_are_counted_apart_and_shown(data: Path, tmp_path: Path, capsys) -> None:
    run = tmp_path / "run"
    generate(data, run)
    assert judged(run, "--fake-near-miss-rate", "1", "--judge-name", "odd") == 0
    judge = summary(run)["judges"][0]
    assert judge["counts"]["unparsed"] == 4
    assert judge["accuracy"] is None
    assert (judge["bounds"]["low"], judge["bounds"]["high"]) == (0, 100)
    assert "unparsed, question 1 repeat 1: '" in capsys.readouterr().out


def test_two_judges_are_compared(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    generate(data, run, "--fake-near-miss-rate", "0.5")
    judged(run, "--judge-name", "first")
    judged(run, "--judge-name", "second", "--seed", "7")
    found = summary(run)["agreement"]
    assert [(one["a"], one["b"], one["n"], one["share"]) for one in found] == [("first", "second", 4, 100)]


def test_example_scripts_as_the_document_types_them(data: Path, tmp_path: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

    def run(script: str, *flags: str) -> str:
        command = [sys.executable, str(EXAMPLES / script), "--backend", "fake", "--quiet", *flags]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=PROCESS_S)
        assert done.returncode == 0, done.stderr
        return done.stdout

    sampling = ["--max-new-tokens", "64", "--temperature", "0.6", "--top-k", "0", "--top-p", "0.9"]
    generated = run(
        "generate.py", "--model", "m", "--eval_dataset_path", str(data), "--batch-size", "2", "--num-workers", "2",
        "--output-json", "out/answers.json", *sampling,
    )  # fmt: skip
    assert "4 answers saved to: out/answers.json" in generated
    rows = json.loads((tmp_path / "out/answers.json").read_text())["generations"]
    assert [row["question"] for row in rows] == [row.question for row in ROWS]
    said = run("evaluate.py", "--input-json", "out/answers.json", "--model", "j")
    assert said.splitlines()[-1].startswith("Accuracy: 100.0%  n=4 answers")
    assert (tmp_path / "out/answers.judges/v1.0-fake-j/manifest.json").is_file()


def test_a_list_of_another_tool_can_be_judged(tmp_path: Path, capsys) -> None:
    path = tmp_path / "theirs.json"
    rows = [{"question": "Q1", "ground_truth": "12", "generated_response": "It is 12."}]
    rows += [{"question": "Q2", "ground_truth": "4", "generated_response": ""}]
    path.write_text(json.dumps(rows))
    assert judged(path) == 0
    judge = summary(path.with_suffix(".judges"))["judges"][0]
    assert (judge["counts"]["right"], judge["counts"]["empty"], judge["accuracy"]) == (1, 1, 50)
    assert len(records(path.with_suffix(".judges") / judge["name"])) == 1, "an empty answer is not asked about"


def test_only_empty_answers_need_no_judge(tmp_path: Path, capsys) -> None:
    path = tmp_path / "empty.json"
    path.write_text(json.dumps([{"question": "Q", "answer": "a", "response": " "}]))
    assert judged(path) == 0
    assert "Accuracy: 0.0%  n=1 answers" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize("text", ["not json", "{}", "[1]", '[{"question": "q"}]', "[]"])
def test_files_without_answers_are_clear_errors(tmp_path: Path, capsys, text: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    assert judged(path) == 2
    assert str(path) in capsys.readouterr().err


def test_the_protocol_must_fit_the_data(data: Path, tmp_path: Path, capsys) -> None:
    generate(data, tmp_path / "run")
    write_generations(tmp_path / "run", tmp_path / "a.json")
    whole = json.loads((tmp_path / "a.json").read_text())
    whole["settings"]["revision"] = "v1.1"
    (tmp_path / "a.json").write_text(json.dumps(whole))
    assert judged(tmp_path / "a.json", "--protocol", "v1.0") == 2
    assert "--protocol v1.1" in capsys.readouterr().err
    assert judged(tmp_path / "a.json") == 0
    assert summary(tmp_path / "a.judges")["judges"][0]["protocol"] == "v1.1"


def test_grading_notes_are_read_recorded_and_refused_where_they_do_not_belong(
    data: Path, tmp_path: Path, capsys
) -> None:
    generate(data, tmp_path / "run")
    notes = tmp_path / "notes.txt"
    notes.write_text("Be exact.")
    found = aa_lcr_judge.load(str(tmp_path / "run"), options={"protocol": "v1.1", "notes": str(notes)})
    assert found.samples[0].prompt.startswith("Be exact.\n\nAssess")
    assert found.settings["grading_notes"]
    with pytest.raises(ConfigError, match="takes no grading notes"):
        aa_lcr_judge.load(str(tmp_path / "run"), options={"protocol": "v1.0", "notes": str(notes)})


def test_prompts_beyond_the_window_are_named_before_anything_runs(data: Path, tmp_path: Path, capsys) -> None:
    assert generate(data, tmp_path / "run", "--context-window", "4096", "--strict-data") == 2
    assert "4 prompt(s) exceed the model's window of 4,096 tokens with an answer of 4,096" in capsys.readouterr().err
    assert not (tmp_path / "run" / "samples").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--option", "prompts=reasoning"], "prompt=official"),
        (["--option", "prompt"], "NAME=VALUE"),
        (["--judge", "--backend nobody --model x"], "unknown backend 'nobody'"),
    ],
)
def test_mistakes_are_said_before_the_model_is_asked(data: Path, tmp_path: Path, capsys, flags, words: str) -> None:
    assert generate(data, tmp_path / "run", *flags) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_num_samples_draws_questions_with_all_their_repeats(data: Path) -> None:
    samples = load(str(data), options={**TASK.options, "repeats": "2"}).samples
    two, notes = select(samples, 2, 42)
    three, _ = select(samples, 3, 42)
    assert len(two) == 4
    assert {sample.id for sample in two} < {sample.id for sample in three}
    assert not notes
    assert select(samples, 99, 42)[1]


def test_filters_that_mean_nothing_here_are_noted(data: Path) -> None:
    assert "aa_lcr has no depths: not filtered by it" in load(str(data), options=TASK.options, depths=(0.0,)).notes


def test_answers_of_another_prompt_are_other_answers(data: Path, tmp_path: Path) -> None:
    generate(data, tmp_path / "a")
    generate(data, tmp_path / "b", "--option", "prompt=reasoning")
    a, b = read_generations(tmp_path / "a"), read_generations(tmp_path / "b")
    assert {one.key for one in a.items}.isdisjoint(one.key for one in b.items)
    assert a.fingerprint != b.fingerprint
    assert PROTOCOLS.keys() == {"v1.0", "v1.1"}
