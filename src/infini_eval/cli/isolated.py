"""A library call in a process of its own: a JSON file says what is asked, and a JSON file what came of it.

  python -m infini_eval.cli.isolated ASKED.json RESULT.json

The memory of such a process is free when it has ended, whatever happened in it; under torchrun it may be several processes.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from infini_eval.api import registry
from infini_eval.config import EvalConfig, JudgeConfig
from infini_eval.distributed.device_memory import resident_bytes
from infini_eval.distributed.shutdown import LAUNCHED
from infini_eval.errors import EXIT_CHECK_FAILED, EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE, InfiniEvalError
from infini_eval.planning.devices import find_gpus

PHASE = "while "  # as evaluation/run_folder.py writes it, which would import torch here
PROGRESS = re.compile(r"\S+ \S+ \[INFO\|[^\]]*\]: ((?:loading the model|tokenising|\d+/\d+ samples)\b.*)")
SAMPLE_S = 1.0  # between two measurements of memory
LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class CallResult:
    """What a call returned as a JSON value, or why it failed; `status` is an exit status.

    Of a failure also the error's class, and the part of the run that it ended, where they are known.
    """

    value: Any = None
    error: str | None = None
    status: int = EXIT_OK
    error_type: str | None = None
    phase: str | None = None


def call(
    name: str,
    config: EvalConfig | JudgeConfig,
    *,
    timeout_s: float = 1800.0,
    processes: int = 1,
    environment: Mapping[str, str] | None = None,
    quiet: bool = False,
    watch: ProcessWatch | None = None,
) -> CallResult:
    """Do one of CALLS in `processes` processes of their own and wait for it.

    Args:
        timeout_s: limit of one collective.
        environment: variables that the processes have besides ours; keys belong there, since no file holds them.
        quiet: keep the processes' log lines from our stderr.
        watch: told which process it is, and each of its log lines where `quiet`.
    """
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in LAUNCHER and not name.startswith(("TORCHELASTIC", LAUNCHED))
    }
    with tempfile.TemporaryDirectory(prefix="infini_eval-") as folder:
        asked, result = Path(folder) / "asked.json", Path(folder) / "result.json"
        asked.write_text(json.dumps({"call": name, "config": config.to_json(), "timeout_s": timeout_s}))
        command = [*launcher, "-m", __name__, str(asked), str(result)]
        stderr, status = _wait_for(command, inherited | dict(environment or {}), quiet=quiet, watch=watch)
        if result.exists():
            return CallResult(**json.loads(result.read_text()))
    return CallResult(error=_last_words(stderr, status), status=status or EXIT_CHECK_FAILED)


def _wait_for(
    command: Sequence[str], environment: Mapping[str, str], *, quiet: bool, watch: ProcessWatch | None
) -> tuple[str, int]:
    """Run a command to its end; what it wrote to stderr where `quiet`, and its exit status."""
    lines: list[str] = []
    measuring = contextlib.nullcontext() if watch is None else watch.sampling()
    watch = watch or ProcessWatch()
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE if quiet else None, text=True
    ) as process:
        watch.pid = process.pid
        try:
            with measuring:
                for line in process.stderr or ():
                    lines.append(line)
                    watch.hear(line)
                process.wait()
        except BaseException:  # an interrupt, which the process has had too: nobody waits for it any more
            process.kill()
            raise
    return "".join(lines), process.returncode


@dataclass
class ProcessWatch:
    """Memory of a process and of all that it has started, of the GPUs, and its last line of progress; from any thread.

    Bytes of GPUs are what everybody uses there, as nvidia-smi counts it.
    """

    pid: int | None = None
    said: str = ""
    host_bytes: int = 0
    gpu_bytes: tuple[int, ...] = ()
    host_peak_bytes: int = 0
    gpu_peak_bytes: tuple[int, ...] = ()

    def hear(self, line: str) -> None:
        """Take one of its log lines."""
        message = PROGRESS.match(line)
        self.said = message[1] if message else self.said

    def sample(self) -> None:
        """Measure now, and keep the peaks."""
        self.host_bytes = resident_bytes(self.pid) if self.pid is not None else 0
        self.gpu_bytes = tuple(gpu.used_mib * 2**20 for gpu in find_gpus() or [])
        self.host_peak_bytes = max(self.host_peak_bytes, self.host_bytes)
        before = self.gpu_peak_bytes or (0,) * len(self.gpu_bytes)
        self.gpu_peak_bytes = tuple(max(pair) for pair in zip(before, self.gpu_bytes, strict=False))

    @contextlib.contextmanager
    def sampling(self) -> Iterator[None]:
        """Measure every SAMPLE_S seconds inside the block, in a thread."""
        ended = threading.Event()

        def work() -> None:
            self.sample()
            while not ended.wait(SAMPLE_S):
                self.sample()

        thread = threading.Thread(target=work, name="memory", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def words(self) -> str:
        """What was measured last."""
        from infini_eval.planning.text import gigabytes

        gpus = [f"GPU {number} {gigabytes(used)}" for number, used in enumerate(self.gpu_bytes)]
        return ", ".join([f"{gigabytes(self.host_bytes)} of the host's memory", *gpus] if self.host_bytes else gpus)

    def peaks(self) -> dict[str, Any]:
        """The most that was seen, as JSON."""
        return {"host_peak_bytes": self.host_peak_bytes, "gpu_peak_bytes": list(self.gpu_peak_bytes)}


def _last_words(stderr: str, status: int) -> str:
    """Why processes left no result: several that fail together end at once, with one message of ours on stderr."""
    messages = re.findall(r"^error: (.+(?:\n  .+)*)", stderr, re.MULTILINE)
    lines = [line for line in stderr.splitlines() if line.strip()]
    silent = f"the process ended with status {status} and left no result"
    return str((messages or lines or [silent])[-1])


def _evaluate(config: EvalConfig, timeout_s: float) -> Any:
    from infini_eval.cli.passkey import evaluate_and_report

    outcome = evaluate_and_report(config, timeout_s)
    return {"folder": str(outcome.folder)} if outcome.is_main else None


def _load_only(config: EvalConfig, timeout_s: float) -> Any:
    from infini_eval.evaluation.load_only import load_only

    return load_only(config, timeout_s=timeout_s)


def _judge(config: JudgeConfig, timeout_s: float) -> Any:
    from infini_eval.library import judge_answers

    judged = judge_answers(config, timeout_s=timeout_s)
    return None if judged is None else asdict(judged)


# by name: the class of its configuration, and what is done; rank 0's answer is a JSON value, the others' None
CALLS: dict[str, tuple[Any, Callable[[Any, float], Any]]] = {
    "evaluate": (EvalConfig, _evaluate),
    "load_only": (EvalConfig, _load_only),
    "judge": (JudgeConfig, _judge),
}


def main(argv: Sequence[str]) -> int:
    """Do what the first file asks and write the second; returns the exit status."""
    from infini_eval.results.files import write_json

    asked, result = map(Path, argv)
    made = _done(json.loads(asked.read_text()))
    if made.value is not None or made.error is not None:
        write_json(result, asdict(made))
    return made.status


def _done(asked: Mapping[str, Any]) -> CallResult:
    kind, work = CALLS[asked["call"]]
    found = asked["config"]
    try:
        backend = found.get("judge", found)["backend"]
        return CallResult(work(kind.from_json(found, registry.backend_face(backend).settings), asked["timeout_s"]))
    except InfiniEvalError as error:
        return CallResult(None, str(error), EXIT_USAGE, type(error).__name__, _phase(error))
    except KeyboardInterrupt:
        return CallResult(error="interrupted; the same command continues", status=EXIT_INTERRUPTED)
    except Exception as error:
        traceback.print_exc()
        kind = type(error).__name__
        return CallResult(None, f"{kind}: {error}", EXIT_CHECK_FAILED, kind, _phase(error))


def _phase(error: BaseException) -> str | None:
    """The part of a run that an error ended, as `Timing` notes it."""
    notes = [note for note in getattr(error, "__notes__", ()) if note.startswith(PHASE)]
    return notes[0].removeprefix(PHASE) if notes else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
