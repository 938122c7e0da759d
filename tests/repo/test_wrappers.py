"""The wrappers' arguments, defaults and exit statuses, with a Python that only records what it was asked to run."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from infini_eval.cli.flags import make_parser
from infini_eval.cli.main import load_command
from support.limits import PROCESS_S

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "examples" / "infinite-context-length" / "scripts"
DEFAULT = "checkpoints/fineweb_4gpu_300m_infini/30000"

# Records its arguments; the command whose line matches $FAIL fails. `generate` leaves the file it is asked for.
FAKE_PYTHON = """#!/usr/bin/env bash
[ "$1" = -c ] && { case $2 in *device_count*) echo "${GPUS:-0}" ;; esac; exit 0; }
echo "$*" >>"$CALLS"
[ -n "${FAIL:-}" ] && [[ "$*" == *$FAIL* ]] && exit 3
while [ $# -gt 0 ]; do
    case $1 in --save_path) case $2 in *.parquet) mkdir -p "${2%/*}" && touch "$2" ;; *) mkdir -p "$2" ;; esac ;; esac
    shift
done
exit 0
"""


class Desk:
    """A working folder with the guide's checkpoint, and what the fake Python was asked to run there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls = folder / "calls"
        (folder / DEFAULT).mkdir(parents=True)
        (folder / DEFAULT / "config.yaml").touch()
        self.python = folder / "python"
        self.python.write_text(FAKE_PYTHON)
        self.python.chmod(0o755)

    def run(self, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        self.calls.write_text("")
        ours = (
            "NPROC",
            "TP",
            "PP",
            "DP",
            "SEED",
            "EVAL_DATASET_PATH",
            "SAVE_PATH",
            "LENGTHS",
            "DATA_DIR",
            "HF_HUB_OFFLINE",
        )
        variables = {name: value for name, value in os.environ.items() if name not in ours}
        variables |= {"CALLS": str(self.calls), "PYTHON": str(self.python), **environment}
        return subprocess.run(
            [SCRIPTS / script, *arguments],
            cwd=self.folder,
            env=variables,
            capture_output=True,
            text=True,
            timeout=PROCESS_S,
        )

    def commands(self, part: str) -> list[str]:
        return [line for line in self.calls.read_text().splitlines() if part in line]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def flag(command: str, name: str) -> str:
    found = re.search(rf"{name}[ =](\S+)", command)
    assert found, f"no {name} in {command}"
    return found[1]


def test_defaults_are_the_guides(desk: Desk):
    result = desk.run("run_passkey_eval_300m.sh", GPUS="4")
    assert result.returncode == 0, result.stderr
    (command,) = desk.commands("run_passkey_eval.py")
    assert flag(command, "--ckpt-path") == f"./{DEFAULT}"
    assert flag(command, "--eval_dataset_path") == "nanotron/llama3-1024-passkey-retrieval-eval"
    assert [flag(command, name) for name in ("--num_samples", "--num_shots", "--num_digits", "--seed")] == [
        "50",
        "0",
        "0",
        "42",
    ]
    assert [flag(command, name) for name in (" -n", "--dp", "--tp", "--pp")] == ["4", "4", "1", "1"]
    assert flag(command, "--max-new-tokens") == "15"
    assert re.fullmatch(r"results/passkey_300m_\d{8}_\d{6}", flag(command, "--save_path"))


def test_local_data_set_wins(desk: Desk):
    (desk.folder / "llama3-1024-passkey-retrieval-eval").mkdir()
    desk.run("run_passkey_eval_300m.sh")
    assert (
        flag(desk.commands("run_passkey_eval.py")[0], "--eval_dataset_path") == "./llama3-1024-passkey-retrieval-eval"
    )
    assert not desk.commands("generate")


def test_offline_without_the_prebuilt_set_generates_and_says_so(desk: Desk):
    result = desk.run("run_passkey_eval_300m.sh", HF_HUB_OFFLINE="1")
    assert "generated instead" in result.stdout
    assert len(desk.commands("infini_eval generate")) == 1


def test_other_lengths_are_generated_once(desk: Desk):
    desk.run("run_passkey_eval_300m.sh", f"./{DEFAULT}", "2k", "7")
    (generation,) = desk.commands("infini_eval generate")
    assert flag(generation, "--context_length") == "2048"
    data = flag(generation, "--save_path")
    assert flag(desk.commands("run_passkey_eval.py")[0], "--eval_dataset_path") == data
    desk.run("run_passkey_eval_300m.sh", f"./{DEFAULT}", "2048", "7")
    assert not desk.commands("infini_eval generate")


def test_more_flags_go_to_the_evaluation(desk: Desk):
    desk.run("run_passkey_eval_300m.sh", f"./{DEFAULT}", "1024", "5", "--memory", "ablate")
    assert desk.commands("run_passkey_eval.py")[0].endswith("--memory ablate")


@pytest.mark.parametrize("script", sorted(path.name for path in SCRIPTS.glob("run_*.sh")))
@pytest.mark.parametrize("wrong", ["./checkpoints/nothing", "./nowhere/at/all"])
def test_wrong_checkpoint_lists_those_there_are(desk: Desk, script: str, wrong: str):
    result = desk.run(script, wrong)
    assert result.returncode == 2
    assert f"./{DEFAULT}" in result.stderr
    assert not desk.commands("run_passkey_eval.py")


@pytest.mark.parametrize("script", sorted(path.name for path in SCRIPTS.glob("run_*.sh")))
def test_failed_evaluation_shows_in_the_exit_status(desk: Desk, script: str):
    assert desk.run(script, FAIL="run_passkey_eval.py").returncode != 0


def test_failed_analysis_shows_in_the_exit_status(desk: Desk):
    result = desk.run("run_full_passkey_benchmark_300m.sh", FAIL="analyze_passkey_results.py")
    assert result.returncode == 1
    assert "failed: analysis" in result.stderr


@pytest.mark.parametrize("length", ["0", "ten", "-5", "1.5k"])
def test_wrong_length_is_refused(desk: Desk, length: str):
    result = desk.run("run_passkey_eval_300m.sh", f"./{DEFAULT}", length)
    assert result.returncode == 2
    assert f"'{length}'" in result.stderr


def test_full_benchmark_runs_four_lengths_and_one_analysis(desk: Desk):
    desk.run("run_full_passkey_benchmark_300m.sh")
    folders = [Path(flag(command, "--save_path")) for command in desk.commands("run_passkey_eval.py")]
    assert [folder.name for folder in folders] == ["1024", "2048", "4096", "8192"]
    (analysis,) = desk.commands("analyze_passkey_results.py")
    assert analysis.endswith(f"{folders[0].parent} --html"), "one page of all lengths"
    assert all("--brief" in command for command in desk.commands("run_passkey_eval.py")), "each report printed once"


def test_full_benchmark_goes_on_after_a_failure(desk: Desk):
    result = desk.run("run_full_passkey_benchmark_300m.sh", FAIL="--context_length 2048")
    assert result.returncode == 1
    assert "failed: 2048" in result.stderr
    assert len(desk.commands("run_passkey_eval.py")) == 3


def test_long_context_uses_five_depths_one_sample_a_batch(desk: Desk):
    desk.run("run_long_context_passkey_eval.sh", f"./{DEFAULT}", "32768", "25")
    (command,) = desk.commands("run_passkey_eval.py")
    assert flag(command, "--depths") == flag(desk.commands("infini_eval generate")[0], "--depths") == "0,25,50,75,100"
    assert flag(command, "--batch_size") == "1"
    assert "passkey_long_32768_" in flag(command, "--save_path")


@pytest.mark.parametrize("script", sorted(path.name for path in SCRIPTS.glob("run_*.sh")))
def test_commands_know_the_flags_they_are_given(desk: Desk, script: str):
    desk.run(script, HF_HUB_OFFLINE="1")
    for command, marker in (("passkey", "run_passkey_eval.py "), ("generate", "infini_eval generate ")):
        parser = make_parser()
        load_command(command).add_arguments(parser)
        lines = desk.commands(marker)
        assert lines
        for line in lines:
            parser.parse_args(line.split(marker, 1)[1].split())  # exits where a flag is unknown


def test_processes_must_divide(desk: Desk):
    assert desk.run("run_passkey_eval_300m.sh", NPROC="4", TP="2").returncode == 0
    command = desk.commands("run_passkey_eval.py")[0]
    assert (flag(command, "--dp"), flag(command, "--tp")) == ("2", "2")
    result = desk.run("run_passkey_eval_300m.sh", NPROC="3", TP="2")
    assert result.returncode == 2
    assert "3 processes" in result.stderr


@pytest.mark.parametrize(("name", "value"), [("NPROC", "four"), ("TP", "0"), ("MAX_NEW_TOKENS", "1.5"), ("SEED", "-1")])
def test_numbers_in_the_environment_are_checked(desk: Desk, name: str, value: str):
    result = desk.run("run_passkey_eval_300m.sh", **{name: value})
    assert result.returncode == 2
    assert f"{name} '{value}' is not a whole number" in result.stderr
    assert not desk.commands("run_passkey_eval.py")


def test_suffixes_in_the_environment_are_read(desk: Desk):
    assert desk.run("run_full_passkey_benchmark_300m.sh", LENGTHS="2k", MAX_NEW_TOKENS="1k").returncode == 0
    (command,) = desk.commands("run_passkey_eval.py")
    assert flag(command, "--max-new-tokens") == "1024"
    assert flag(command, "--save_path").endswith("/2048")


@pytest.mark.parametrize("script", sorted(path.name for path in SCRIPTS.glob("run_*.sh")))
def test_help(desk: Desk, script: str):
    result = desk.run(script, "--help")
    assert result.returncode == 0
    assert script in result.stdout
