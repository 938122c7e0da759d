"""Runs that are killed at random, again and again, and continued at other topologies until they are complete.

    scripts/chaos.sh --kills 200 --seed 7

Each run is an evaluation without a model (`support.fake_evaluation`). A launch of it, by plain Python, torchrun or
`infini-eval launch` at a random dp, tp and pp, gets one of KILL, TERM, INT and STOP while it starts or after some samples:
one of its processes, its launcher, or all of them. After every kill no process may be left; after the last the run is
continued once more, and must hold every sample exactly once, with the answers of a run that nobody disturbed, and neither
lock nor temporary file.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

TESTS = Path(__file__).resolve().parents[1]
MARK = "INFINI_EVAL_CHAOS"  # in the environment of every process of a launch, and so its name to us
TOPOLOGIES = ((1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 2), (3, 1, 1), (2, 2, 1), (1, 2, 2), (2, 1, 2))
SIGNALS = ("KILL", "TERM", "INT", "STOP")
TARGETS = ("a rank", "the launcher", "all")
SAMPLES = 40
SAMPLE_S = 0.05
KILLS_A_RUN = 4
LIMIT_S = 300.0  # for what must come to an end by itself, on the busiest machine
TIMEOUT_S = 60  # of the runs' collectives
PAUSE_S = (0.2, 4.0)  # how long what was stopped stays so
START_S = 6.0  # kills of a launch that is just starting come within so long


@dataclass(frozen=True)
class Kill:
    """One disturbance: `when` is seconds after the start, or a number of samples that have been added."""

    topology: tuple[int, int, int]
    launcher: str
    signal: str
    target: str
    seconds: float | None
    samples: int
    resumes: bool

    @classmethod
    def draw(cls, rng: random.Random) -> Kill:
        topology = rng.choice(TOPOLOGIES)
        processes = topology[0] * topology[1] * topology[2]
        return cls(
            topology=topology,
            launcher="python" if processes == 1 else rng.choice(("torchrun", "infini-eval launch")),
            signal=rng.choice(SIGNALS),
            target=rng.choice(TARGETS),
            seconds=rng.uniform(0, START_S) if rng.random() < 0.4 else None,
            samples=rng.randrange(SAMPLES // KILLS_A_RUN),
            resumes=rng.random() < 0.5,
        )

    def __str__(self) -> str:
        dp, tp, pp = self.topology
        when = f"after {self.seconds:.1f} s" if self.seconds is not None else f"after {self.samples} samples"
        then = (", then CONT" if self.resumes else ", then KILL") if self.signal == "STOP" else ""
        return f"{self.launcher}, dp {dp} tp {tp} pp {pp}: {self.signal} to {self.target} {when}{then}"


class Failure(AssertionError):
    """A promise that a run has broken."""


def command(folder: Path, topology: tuple[int, int, int], launcher: str) -> list[str]:
    dp, tp, pp = (str(size) for size in topology)
    flags = [str(folder), "--dp", dp, "--tp", tp, "--pp", pp, "--samples", str(SAMPLES), "--seconds", str(SAMPLE_S)]
    flags += ["--timeout", str(TIMEOUT_S), "--grace", "5"]
    processes = str(topology[0] * topology[1] * topology[2])
    module = ["-m", "support.fake_evaluation"]
    starting = {
        "python": [sys.executable, *module],
        "torchrun": [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc_per_node={processes}",
            *module,
        ],
        "infini-eval launch": [
            *(sys.executable, "-m", "infini_eval", "launch", "-n", processes),
            str(TESTS / "support" / "fake_evaluation.py"),
        ],
    }
    return [*starting[launcher], *flags]


class Launch:
    """One launch of the run, with all the processes that come of it."""

    def __init__(self, folder: Path, topology: tuple[int, int, int], launcher: str) -> None:
        self._mark = uuid4().hex
        self._output = tempfile.TemporaryFile("w+")  # noqa: SIM115 - for as long as the launch is looked at
        paths = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
        environment = os.environ | {MARK: self._mark, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
        streams = {"stdout": self._output, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL}
        self.process = subprocess.Popen(
            command(folder, topology, launcher), env=environment, start_new_session=True, **streams
        )

    def processes(self) -> list[int]:
        """Those that are alive, the launcher first."""
        found = []
        for path in Path("/proc").iterdir():
            if path.name.isdecimal() and self._is_ours(path):
                found.append(int(path.name))
        return sorted(found, key=lambda pid: (pid != self.process.pid, pid))

    def _is_ours(self, path: Path) -> bool:
        with contextlib.suppress(OSError):
            if f"{MARK}={self._mark}".encode() in (path / "environ").read_bytes().split(b"\0"):
                return (path / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
        return False

    def send(self, name: str, pids: list[int]) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, getattr(signal, f"SIG{name}"))

    def wait_until_gone(self) -> None:
        """Raises Failure where processes are left after LIMIT_S."""
        deadline = time.monotonic() + LIMIT_S
        while left := self.processes():
            self.process.poll()
            if time.monotonic() > deadline:
                self.send("KILL", left)
                raise Failure(f"{len(left)} processes are left\n{self.output()}")
            time.sleep(0.1)
        self.process.wait()

    def output(self) -> str:
        self._output.seek(0)
        return self._output.read()[-4000:]


def finished(folder: Path) -> int:
    """Lines that the run has so far."""
    return sum(path.read_bytes().count(b"\n") for path in (folder / "samples").glob("*.jsonl"))


def disturb(folder: Path, kill: Kill, rng: random.Random) -> tuple[bool, bool]:
    """Launch the run, disturb it, and wait for its end: whether it was still running then, and whether it is complete."""
    launch = Launch(folder, kill.topology, kill.launcher)
    _wait_for_the_moment(launch, folder, kill)
    pids = launch.processes()
    came_in_time = launch.process.poll() is None
    ranks = pids[1:] or pids
    chosen = {"a rank": [rng.choice(ranks)] if ranks else [], "the launcher": pids[:1], "all": pids}[kill.target]
    launch.send(kill.signal, chosen)
    if kill.signal == "STOP":
        time.sleep(rng.uniform(*PAUSE_S))
        launch.send("CONT" if kill.resumes else "KILL", chosen)
    launch.wait_until_gone()
    if "Traceback (most recent call last)" in launch.output() and kill.launcher != "torchrun":
        raise Failure(f"a traceback was shown\n{launch.output()}")
    return came_in_time, launch.process.returncode == 0


def _wait_for_the_moment(launch: Launch, folder: Path, kill: Kill) -> None:
    began, before = time.monotonic(), finished(folder)
    while launch.process.poll() is None and time.monotonic() < began + LIMIT_S:
        if kill.seconds is not None and time.monotonic() - began >= kill.seconds:
            return
        if kill.seconds is None and finished(folder) - before >= kill.samples:
            return
        time.sleep(0.02)


def complete(folder: Path, topology: tuple[int, int, int], launcher: str) -> None:
    """Continue the run undisturbed; Failure where it does not end well."""
    launch = Launch(folder, topology, launcher)
    launch.wait_until_gone()
    if launch.process.returncode:
        raise Failure(f"the run ended with status {launch.process.returncode}\n{launch.output()}")


def check(folder: Path, undisturbed: Path) -> None:
    """Failure where samples are missing, doubled or changed, or a lock or a temporary is left."""
    import pyarrow.parquet as pq

    from infini_eval.results.samples import iter_samples

    records = [line.record for line in iter_samples(folder)]
    keys = Counter("a torn line" if record is None else record["sample_key"] for record in records)
    if len(keys) != SAMPLES or set(keys.values()) != {1}:
        raise Failure(f"{len(keys)} of {SAMPLES} samples, more than once: {[key for key in keys if keys[key] > 1]}")
    mine, theirs = (
        pq.read_table(run / "samples.parquet").drop(["seconds", "replica"]) for run in (folder, undisturbed)
    )
    if not mine.equals(theirs):
        raise Failure("the answers differ from those of a run that nobody disturbed")
    left = [str(path) for path in folder.rglob("*") if path.name.startswith((".", "run.lock"))]
    if left:
        raise Failure(f"left behind: {left}")


def rampage(folder: Path, kills: int, seed: int, say: bool = True) -> Counter[str]:
    """Disturb runs `kills` times; counts by signal and target. Failure names the kills that led to it."""
    rng = random.Random(seed)
    undisturbed = folder / "undisturbed"
    complete(undisturbed, TOPOLOGIES[0], "python")
    counts: Counter[str] = Counter()
    number = 0
    while counts.total() < kills:
        number += 1
        run, history = folder / f"run-{number}", []
        try:
            while counts.total() < kills and len(history) < KILLS_A_RUN:
                kill = Kill.draw(rng)
                history.append(str(kill))
                came_in_time, is_complete = disturb(run, kill, rng)
                counts[f"{kill.signal} to {kill.target}"] += came_in_time
                if say:
                    print(f"{counts.total():>5}  {kill}{'' if came_in_time else ' (it had ended)'}", flush=True)
                if is_complete:
                    break
            last = Kill.draw(rng)
            complete(run, last.topology, last.launcher)
            check(run, undisturbed)
        except Failure as failure:
            raise Failure(f"run {number} of seed {seed}: {failure}\n" + "\n".join(history)) from None
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of what is drawn (default: %(default)s)")
    args = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="infini-chaos-") as folder:
        try:
            counts = rampage(Path(folder), args.kills, args.seed)
        except Failure as failure:
            print(f"FAILED: {failure}")
            return 1
    print(f"{counts.total()} kills in {time.monotonic() - began:.0f} s, no sample lost, doubled or changed:")
    print("\n".join(f"  {count:>4}  {what}" for what, count in sorted(counts.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
