"""`--task ruler`: the 13 tasks are made and run one after the other, what is missing is named, the table is right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from infini_eval.cli.main import main
from infini_eval.cli.suite import options_by_task
from infini_eval.errors import ConfigError
from infini_eval.tasks.ruler import SUITE
from support.limits import PROCESS_S

pytest.importorskip("wonderwords")

ROOT = Path(__file__).resolve().parents[2]
TOKENIZER = str(ROOT / "checkpoints" / "llama-demo")
SQUAD = {
    "data": [
        {
            "paragraphs": [
                {"context": f"Town {i} was founded by Founder{i}." + " It is old." * 20, "qas": [
                    {"question": f"Who founded town {i}?", "answers": [{"text": f"Founder{i}"}], "is_impossible": False}
                ]}
                for i in range(30)
            ]
        }
    ]
}  # fmt: skip


def generate(save: Path, *more: str) -> int:
    given = ["generate", "--task", "ruler", "--tokenizer", TOKENIZER, "--num_prompts", "2", "--quiet"]
    return main([*given, "--save_path", str(save), *more])


def run(data: Path, save: Path, *more: str, task: str = "ruler") -> list[str]:
    given = ["run", "--task", task, "--backend", "fake", "--model", "none", "--quiet", "--tokenizer", TOKENIZER]
    return [*given, "--eval_dataset_path", str(data), "--save_path", str(save), *more]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve of the thirteen tasks at two lengths: HotpotQA's file is not given."""
    folder = tmp_path_factory.mktemp("ruler")
    (folder / "squad.json").write_text(json.dumps(SQUAD))
    options = [f"qa_1.file={folder / 'squad.json'}", "cwe.common_times=4", "cwe.others_times=1", "example=no"]
    flags = [word for option in options for word in ("--option", option)]
    assert generate(folder / "data", "--context_length", "1k", "2k", *flags) == 0
    return folder / "data"


def test_every_task_is_made_but_those_whose_material_is_missing(data: Path, tmp_path: Path, capsys) -> None:
    made = {folder.name for folder in data.iterdir()}
    assert made == set(SUITE) - {"ruler_qa_2"}
    for name in made:
        files = sorted(file.name for file in (data / name).iterdir())
        assert files == ["1024.parquet", "2048.parquet"]
        rows = pq.read_table(data / name / "1024.parquet").to_pylist()
        assert len(rows) == 2 and {row["context_length"] for row in rows} == {1_024}
    assert (
        generate(tmp_path / "none", "--context_length", "4k", "--num_prompts", "1", "--option", "cwe.common_times=3")
        == 0
    )
    said = capsys.readouterr().err
    assert "not made: ruler_qa_1: ruler_qa_1 needs questions of yours" in said and "dev-v2.0.json" in said
    assert said.count("not made: ruler_qa_2") == 1


def test_what_fails_for_another_reason_is_said_and_the_rest_is_made(tmp_path: Path, capsys) -> None:
    assert generate(tmp_path, "--context_length", "1k", "--option", "qa_1.file=absent.json") == 2
    said = capsys.readouterr().err
    assert "not made: ruler_qa_1, 1,024 tokens: no question file 'absent.json'" in said
    assert "not made: ruler_cwe, 1,024 tokens" in said
    assert (tmp_path / "ruler_fwe" / "1024.parquet").is_file() and not (tmp_path / "ruler_cwe").exists()


def test_the_suite_runs_and_continues(data: Path, tmp_path: Path, capsys) -> None:
    save, copy = tmp_path / "run", tmp_path / "copy.json"
    assert main(run(data, save, "--fake-failure-rate", "0.3")) == 0
    first = json.loads((save / "suite.json").read_text())
    assert first["missing"] == ["ruler_qa_2"] and any(block["failed"] for block in first["lengths"])
    assert not any(block["complete"] for block in first["lengths"])
    assert main(run(data, save, "--results_file", str(copy))) == 0
    said = capsys.readouterr().out
    found = json.loads((save / "suite.json").read_text())
    assert found == json.loads(copy.read_text()) and [block["context_length"] for block in found["lengths"]] == [
        1_024,
        2_048,
    ]
    for block in found["lengths"]:
        assert block["failed"] == 0 and block["averaged_tasks"] == 12 and not block["complete"]
        assert set(block["tasks"]) == set(SUITE) - {"ruler_qa_2"} and block["average"]["score"] == 100
    assert "An average of fewer than 13 tasks is not the suite's." in said and "No run of: ruler_qa_2" in said
    assert (save / "ruler_vt" / "summary.json").is_file() and (save / "suite.txt").read_text() in said
    alone = tmp_path / "alone"
    assert main(run(data / "ruler_vt", alone, task="ruler_vt")) == 0
    scorers = [
        json.loads((at / "manifest.json").read_text())["identity"]["scorer"] for at in (alone, save / "ruler_vt")
    ]
    assert scorers == ["string_match_all"] * 2
    assert json.loads((save / "ruler_qa_1" / "manifest.json").read_text())["identity"]["scorer"] == "string_match_part"


def test_the_suite_runs_in_several_processes(data: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "infini_eval"]
    few = tmp_path / "few"
    for name in ("ruler_vt", "ruler_fwe"):
        (few / name).mkdir(parents=True)
        (few / name / "1024.parquet").symlink_to(data / name / "1024.parquet")
    done = subprocess.run(
        [*command, *run(few, tmp_path / "run")],
        capture_output=True, text=True, timeout=PROCESS_S, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("average of the tasks") == 1
    (block,) = json.loads((tmp_path / "run" / "suite.json").read_text())["lengths"]
    assert block["averaged_tasks"] == 2 and {cell["num_samples"] for cell in block["tasks"].values()} == {2}


def test_options_go_to_the_tasks_that_have_them() -> None:
    found = options_by_task({"example": "no", "qa_2.file": "h.json", "ruler_vt.hops": "2"}, SUITE)
    assert {name: own for name, own in found.items() if own} == {
        "ruler_vt": {"example": "no", "hops": "2"}, "ruler_cwe": {"example": "no"}, "ruler_qa_2": {"file": "h.json"},
    }  # fmt: skip
    with pytest.raises(ConfigError, match=r"--option vt.colour: no task(.|\n)*vt.hops"):
        options_by_task({"vt.colour": "red"}, SUITE)


def test_what_does_not_go_with_a_suite(data: Path, tmp_path: Path, capsys) -> None:
    for more, problem in (
        (("--char-count", "9000"), "a suite needs the prompts' tokens"),
        (("--context_length", "1k", "--control", "no-context"), "--control does not go with a suite"),
        (("--context_length", "1k", "--format", "hf"), "--format hf does not go with a suite"),
    ):
        assert generate(tmp_path, *more) == 2
        assert problem in capsys.readouterr().err
    assert main(run(tmp_path, tmp_path / "run")) == 2
    assert "holds none of the suite's tasks" in capsys.readouterr().err
    assert main(run(data, tmp_path / "run", "--judge", "--backend fake --model x")) == 2
    assert "--judge does not go with a suite" in capsys.readouterr().err
