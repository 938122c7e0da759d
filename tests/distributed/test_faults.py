"""What happens to a run when processes, launchers and signals do what they do on clusters; with real processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from infini_eval.errors import EXIT_INTERRUPTED, EXIT_USAGE
from infini_eval.results.samples import iter_samples
from support import fake_evaluation
from support.limits import PROCESS_S

pytestmark = [pytest.mark.distributed, pytest.mark.slow]
MODULE = fake_evaluation.__name__
TESTS = Path(__file__).resolve().parents[1]
WITH_SUPPORT = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))


@pytest.fixture
def start():
    """Start processes in a group of their own, killed with all that they started when the test ends."""
    started = []

    def start_one(command, **variables):
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("RANK", "WORLD", "LOCAL_"))
        }
        environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": WITH_SUPPORT, **variables}
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, env=environment, start_new_session=True, **pipes)
        started.append(process)
        return process

    yield start_one
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def bare_ranks(start, world_size, *arguments):
    """The ranks of a world without a torchrun agent; rank 0 hosts the store."""
    common = {"WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    command = [sys.executable, "-m", MODULE, *map(str, arguments)]
    return [start(command, RANK=str(rank), LOCAL_RANK=str(rank), **common) for rank in range(world_size)]


def torchrun(start, nproc, *arguments, launcher=("--standalone",)):
    command = [sys.executable, "-m", "torch.distributed.run", *launcher, f"--nproc_per_node={nproc}", "-m", MODULE]
    return start([*command, *map(str, arguments)])


def launched(start, nproc, *arguments, flags=()):
    """By `infini-eval launch`, with these flags of its own."""
    script = str(TESTS / "support" / "fake_evaluation.py")
    command = [sys.executable, "-m", "infini_eval", "launch", "-n", str(nproc), *flags, script]
    return start([*command, *map(str, arguments)])


def finish(processes):
    """Exit statuses and messages, by rank."""
    outputs = [process.communicate(timeout=PROCESS_S)[1] for process in processes]
    return [process.returncode for process in processes], outputs


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def finished_keys(folder):
    return [line.record["sample_key"] for line in iter_samples(folder) if line.record is not None]


def wait_for_samples(folder, count=1):
    deadline = time.monotonic() + PROCESS_S
    while time.monotonic() < deadline:
        if Path(folder, "samples").is_dir() and len(finished_keys(folder)) >= count:
            return
        time.sleep(0.05)
    raise AssertionError(f"fewer than {count} samples after {PROCESS_S} s")


def children(process):
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def alive(pids):
    """Those of the processes that still run; an orphan that nobody has reaped is not running."""
    states = {}
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            states[pid] = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return [pid for pid, state in states.items() if state not in "ZX"]


def assert_complete(folder, count):
    """The run, continued by a single process, has every sample exactly once, as an undisturbed run has."""
    pq = pytest.importorskip("pyarrow.parquet")
    done = set(finished_keys(folder))
    assert fake_evaluation.main([str(folder), "--samples", str(count), "--seconds", "0"]) == 0
    assert done < set(finished_keys(folder))
    assert len(set(finished_keys(folder))) == len(finished_keys(folder)) == count
    other = Path(folder).with_name("undisturbed")
    assert fake_evaluation.main([str(other), "--samples", str(count), "--seconds", "0"]) == 0
    mine, theirs = (
        pq.read_table(run / "samples.parquet").drop(["seconds", "replica"]) for run in (Path(folder), other)
    )
    assert mine.equals(theirs)


def test_another_ranks_mistake_is_shown_once_and_all_end(start, tmp_path):
    statuses, outputs = finish(bare_ranks(start, 2, tmp_path / "run", "--dp", 2, "--misbehave", "mistake:1:3"))
    assert statuses == [EXIT_USAGE] * 2
    assert "error: this sample cannot be used\n  where: rank 1, sample " in outputs[0]
    assert "Traceback" not in "".join(outputs)
    assert "".join(outputs).count("cannot be used") == 1
    assert_complete(tmp_path / "run", 20)


def test_a_crash_in_a_pipeline_does_not_hang_the_others(start, tmp_path):
    statuses, outputs = finish(bare_ranks(start, 3, tmp_path / "run", "--pp", 3, "--misbehave", "crash:2:3"))
    assert statuses == [1] * 3
    assert "error: RuntimeError: out of luck\n  where: rank 2, sample " in outputs[0]
    assert outputs[0].count("please report it with") == 1
    assert "Traceback" not in "".join(outputs)


def test_a_killed_rank_ends_the_others_and_the_run_resumes(start, tmp_path):
    statuses, outputs = finish(bare_ranks(start, 2, tmp_path / "run", "--tp", 2, "--misbehave", "kill:1:4"))
    assert statuses == [1, -signal.SIGKILL]
    assert "no heartbeat any more from rank 1" in outputs[0]
    assert len(finished_keys(tmp_path / "run")) == 4
    assert_complete(tmp_path / "run", 20)


def test_a_hung_collective_ends_by_the_time_limit_and_names_the_silent_rank(start, tmp_path):
    arguments = (tmp_path / "run", "--tp", 2, "--timeout", 30, "--misbehave", "freeze:1:4", "--seconds", 0.3)
    ranks = bare_ranks(start, 2, *arguments)
    output = ranks[0].communicate(timeout=PROCESS_S)[1]
    assert ranks[0].returncode == 1
    assert "no heartbeat any more from rank 1 (" in output
    assert "s ago: sample " in output
    assert ranks[1].poll() is None


def test_one_process_stops_after_the_sample_in_hand(start, tmp_path):
    run = start([sys.executable, "-m", MODULE, str(tmp_path / "run"), "--seconds", "0.2"])
    wait_for_samples(tmp_path / "run")
    run.send_signal(signal.SIGTERM)
    statuses, outputs = finish([run])
    assert statuses == [EXIT_INTERRUPTED]
    assert "the same command continues" in outputs[0]
    assert not (tmp_path / "run" / "run.lock").exists()
    assert_complete(tmp_path / "run", 20)


def test_a_sample_longer_than_the_grace_is_dropped(start, tmp_path):
    run = start([sys.executable, "-m", MODULE, str(tmp_path / "run"), "--seconds", "600", "--grace", "0.5"])
    deadline = time.monotonic() + PROCESS_S
    while not (tmp_path / "run" / "manifest.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    statuses, outputs = finish([run])
    assert statuses == [EXIT_INTERRUPTED]
    assert "stopped by SIGINT" in outputs[0]
    assert not (tmp_path / "run" / "run.lock").exists()


def test_a_signal_to_one_rank_stops_all(start, tmp_path):
    ranks = bare_ranks(start, 2, tmp_path / "run", "--dp", 2, "--seconds", 0.2, "--samples", 200)
    wait_for_samples(tmp_path / "run", 4)
    ranks[1].send_signal(signal.SIGUSR1)
    statuses, outputs = finish(ranks)
    assert statuses == [EXIT_INTERRUPTED] * 2
    assert "stopped by SIGUSR1" in outputs[0]


def test_a_second_run_in_the_folder_refuses(start, tmp_path):
    first = start([sys.executable, "-m", MODULE, str(tmp_path / "run"), "--seconds", "0.5", "--samples", "200"])
    wait_for_samples(tmp_path / "run")
    statuses, outputs = finish([start([sys.executable, "-m", MODULE, str(tmp_path / "run"), "--samples", "200"])])
    assert statuses == [EXIT_USAGE]
    assert f"in use by another run: process {first.pid}" in outputs[0]
    assert first.poll() is None


def test_a_full_disk_ends_the_run_with_its_reason_and_what_is_written_stays(start, tmp_path):
    """The limit on file size stands in for a full disk: the kernel takes a part of a line, then refuses."""
    limited = ["bash", "-c", 'ulimit -f 4; exec "$@"', "-", sys.executable, "-m", MODULE, str(tmp_path / "run")]
    statuses, outputs = finish([start(limited)])
    assert statuses == [EXIT_USAGE]
    assert "replica-00000.jsonl': File too large" in outputs[0]
    assert "what was finished is kept" in outputs[0]
    assert_complete(tmp_path / "run", 20)


def test_workers_end_when_their_agent_is_killed_and_the_same_command_continues(start, tmp_path):
    agent = torchrun(start, 2, tmp_path / "run", "--pp", 2, "--seconds", 0.05, "--samples", 300)
    wait_for_samples(tmp_path / "run", 3)
    workers = children(agent)
    assert len(workers) == 2
    agent.kill()
    deadline = time.monotonic() + PROCESS_S
    while alive(workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert alive(workers) == []
    assert_complete(tmp_path / "run", 300)


def test_torchrun_restarts_a_killed_rank_and_the_run_completes(start, tmp_path):
    launcher = ("--standalone", "--max-restarts=1")
    agent = torchrun(start, 2, tmp_path / "run", "--dp", 2, "--misbehave", "kill:0:3", launcher=launcher)
    statuses, outputs = finish([agent])
    assert statuses == [0], outputs
    keys = finished_keys(tmp_path / "run")
    assert len(set(keys)) == len(keys) == 20
    attempts = json.loads((tmp_path / "run" / "manifest.json").read_text())["environment"]["previous_attempts"]
    assert len(attempts) == 1


def test_our_own_launch_restarts_a_killed_rank_too(start, tmp_path):
    arguments = (tmp_path / "run", "--dp", 2, "--misbehave", "kill:1:3")
    statuses, outputs = finish([launched(start, 2, *arguments, flags=("--max-restarts", "1"))])
    assert statuses == [0], outputs
    keys = finished_keys(tmp_path / "run")
    assert len(set(keys)) == len(keys) == 20


def test_slurms_warning_signal_reaches_the_workers(start, tmp_path):
    launcher = ("--standalone", "--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1")
    arguments = (tmp_path / "run", "--dp", 2, "--seconds", 0.1, "--samples", 300)
    agent = torchrun(start, 2, *arguments, launcher=launcher)
    wait_for_samples(tmp_path / "run", 3)
    agent.send_signal(signal.SIGUSR1)
    statuses, outputs = finish([agent])
    assert statuses != [0]
    assert "stopped by SIGUSR1; what was finished is on disk" in outputs[0]


def test_two_agents_on_loopback_share_one_run(start, tmp_path):
    rendezvous = ("--nnodes=2", "--rdzv-backend=c10d", "--rdzv-id=two", f"--rdzv-endpoint=127.0.0.1:{free_port()}")
    arguments = (tmp_path / "run", "--dp", 2, "--tp", 2, "--seconds", 0.05)
    statuses, outputs = finish([torchrun(start, 2, *arguments, launcher=rendezvous) for _ in range(2)])
    assert statuses == [0, 0], outputs
    assert "20 samples, 0 of them found done" in "".join(outputs)
    assert len({line.record["replica"] for line in iter_samples(tmp_path / "run")}) == 2


def test_behind_torchrun_the_message_stands_at_the_end(start, tmp_path):
    statuses, outputs = finish([torchrun(start, 2, tmp_path / "run", "--dp", 2, "--misbehave", "mistake:1:3")])
    assert statuses == [1]
    assert "traceback : error: this sample cannot be used" in "\n".join(outputs[0].splitlines()[-6:])


def test_launched_by_our_own_command_the_message_stands_last_and_once(start, tmp_path):
    statuses, outputs = finish([launched(start, 2, tmp_path / "run", "--dp", 2, "--misbehave", "mistake:1:3")])
    assert statuses == [EXIT_USAGE], outputs
    message, where = outputs[0].splitlines()[-2:]
    assert message == "error: this sample cannot be used"
    assert where.startswith("  where: rank 1, sample ")
    assert outputs[0].count("cannot be used") == 1
    assert "ChildFailedError" not in outputs[0] and "Traceback" not in outputs[0]


def test_launched_by_our_own_command_an_interrupt_ends_quietly_and_the_run_continues(start, tmp_path):
    agent = launched(start, 2, tmp_path / "run", "--dp", 2, "--seconds", 0.1, "--samples", 200)
    wait_for_samples(tmp_path / "run", 3)
    os.killpg(agent.pid, signal.SIGINT)  # as Ctrl-C does
    statuses, outputs = finish([agent])
    assert statuses == [EXIT_INTERRUPTED]
    assert outputs[0].splitlines()[-1].startswith("stopped by SIGINT; what was finished is on disk")
    assert "Traceback" not in outputs[0] and "SignalException" not in outputs[0]
    assert_complete(tmp_path / "run", 200)


def test_a_worker_whose_launcher_was_killed_before_it_looked_leaves_at_once(start, tmp_path):
    worker = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "x"}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    orphan = ["bash", "-c", '"$@" & exit 7', "-", sys.executable, "-m", MODULE, str(tmp_path / "run"), "--dp", "2"]
    statuses, outputs = finish([start(orphan, **worker, **address)])  # ends when the orphan has closed its output
    assert statuses == [7]
    assert outputs[0].startswith("rank 1: torchrun is gone")


def test_workers_leave_whose_agent_is_killed_while_they_start(start, tmp_path):
    agent = torchrun(start, 2, tmp_path / "run", "--dp", 2)
    deadline = time.monotonic() + PROCESS_S
    while not (workers := children(agent)) and time.monotonic() < deadline:
        time.sleep(0.05)
    agent.kill()
    while alive(workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert workers and alive(workers) == []
    assert not (tmp_path / "run").exists()


def listening(pids):
    """Addresses at which these processes wait for connections, as the kernel writes them: 0100007F:8A43."""
    sockets = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                sockets.add(str(descriptor.readlink()).removeprefix("socket:[").removesuffix("]"))
    rows = [row.split() for kind in ("tcp", "tcp6") for row in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]]
    return {row[1] for row in rows if row[3] == "0A" and row[9] in sockets}


def test_launched_on_one_machine_nothing_listens_beyond_it(start, tmp_path):
    agent = launched(start, 2, tmp_path / "run", "--dp", 2, "--seconds", 0.1, "--samples", 200)
    wait_for_samples(tmp_path / "run", 3)
    addresses = {address.rpartition(":")[0] for address in listening([agent.pid, *children(agent)])}
    assert addresses == {"0100007F"}
