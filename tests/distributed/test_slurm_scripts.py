"""The sbatch scripts, with stand-ins for Slurm's commands."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from infini_eval.testing.limits import PROCESS_S

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "scripts" / "slurm").glob("*.sbatch"))
STANDINS = {
    "scontrol": 'echo "scontrol $*" >>"$CALLS"; if [ "$1" = show ]; then echo node-a; echo node-b; fi',
    "scancel": 'echo "scancel $*" >>"$CALLS"; kill -USR1 "$(cat "$CALLS.step")"',
    "srun": 'shift; exec "$@"',
    "torchrun": """
        trap 'exit 1' USR1
        echo $$ >"$CALLS.step"
        echo "torchrun $*" >>"$CALLS"
        for _ in $(seq 1 "$TENTHS"); do sleep 0.1; done
        exit "$STATUS"
    """,
}


@pytest.fixture
def submit(tmp_path):
    """Start a script as Slurm would, with commands that record their calls; `calls()` reads these."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, body in STANDINS.items():
        (commands / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (commands / name).chmod(0o755)
    started = []

    def start(script, *arguments, tenths=0, status=0, task=0):
        variables = {
            "PATH": f"{commands}:{os.environ['PATH']}",
            "CALLS": str(tmp_path / "calls"),
            "TENTHS": str(tenths),
            "STATUS": str(status),
            "SLURM_JOB_ID": "41234",
            "SLURM_JOB_NODELIST": "node-[a-b]",
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_ARRAY_TASK_ID": str(task),
        }
        command = ["bash", str(ROOT / "scripts" / "slurm" / script), *map(str, arguments)]
        started.append(subprocess.Popen(command, cwd=ROOT, env=variables, stdout=-1, stderr=-1, text=True))
        return started[-1]

    start.calls = lambda: (tmp_path / "calls").read_text() if (tmp_path / "calls").exists() else ""
    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_is_content(script):
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(["shellcheck", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_one_agent_a_node_meets_at_the_first_node(submit):
    assert submit("evaluate.sbatch", "--ckpt-path", "a b", "--tp", "2").wait(PROCESS_S) == 0
    call = submit.calls()
    assert "--nnodes=2 --nproc_per_node=gpu" in call
    assert "--rdzv-id=41234 --rdzv-endpoint=node-a:21234" in call
    assert "--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1" in call
    assert call.rstrip().endswith("-m infini_eval passkey --ckpt-path a b --tp 2")


def test_a_failure_is_passed_on_and_not_queued_again(submit):
    assert submit("evaluate.sbatch", status=1).wait(PROCESS_S) == 1
    assert "requeue" not in submit.calls()


@pytest.mark.parametrize("script", ["evaluate.sbatch", "evaluate_checkpoints.sbatch"])
def test_out_of_time_the_step_is_warned_and_the_job_queued_again(submit, tmp_path, script):
    (tmp_path / "checkpoints" / "100").mkdir(parents=True)
    (tmp_path / "checkpoints" / "100" / "config.yaml").touch()
    job = submit(script, tmp_path / "checkpoints", tmp_path / "runs", tenths=36000)
    deadline = time.monotonic() + PROCESS_S
    while "torchrun" not in submit.calls() and time.monotonic() < deadline:
        time.sleep(0.05)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(PROCESS_S) == 1
    assert "scancel --signal=USR1 41234\nscontrol requeue 41234\n" in submit.calls()


def test_an_array_takes_checkpoints_in_numerical_order(submit, tmp_path):
    for step in ("1000", "200", "30000", "not-one"):
        (tmp_path / step).mkdir()
        if step.isdecimal():
            (tmp_path / step / "config.yaml").touch()
    for task, step in enumerate(("200", "1000", "30000")):
        assert submit("evaluate_checkpoints.sbatch", tmp_path, "runs", "--dp", "4", task=task).wait(PROCESS_S) == 0
        assert f"--ckpt-path {tmp_path}/{step} --save_path runs/{step} --dp 4" in submit.calls()
    assert submit("evaluate_checkpoints.sbatch", tmp_path, "runs", task=3).wait(PROCESS_S) == 0
    assert submit.calls().count("torchrun") == 3


def test_a_folder_without_checkpoints_is_an_error(submit, tmp_path):
    job = submit("evaluate_checkpoints.sbatch", tmp_path, "runs")
    assert job.wait(PROCESS_S) == 2
    assert "holds a config.yaml" in job.stderr.read()
