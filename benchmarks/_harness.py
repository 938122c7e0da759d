"""What every benchmark is made of: metrics with targets, a gate that comes first, and interleaved timing."""

from __future__ import annotations

import contextlib
import importlib
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "checkpoints" / "infini-demo"


class WrongAnswer(Exception):
    """What was to be timed computed something wrong: there is no speed to report."""


@dataclass(frozen=True)
class Metric:
    """One figure. `limit` is DESIGN's target, None for what is only reported; `floors.json` may hold a looser bound."""

    name: str
    value: float
    unit: str = ""
    sense: Literal["<=", ">="] = ">="
    limit: float | None = None
    note: str = ""

    def met(self, limit: float | None) -> bool:
        """Whether the value is on the right side of `limit` (always, without one)."""
        if limit is None:
            return True
        return self.value <= limit if self.sense == "<=" else self.value >= limit

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def gate(correct: bool, what: str) -> None:
    """Refuse to go on where an answer is wrong."""
    if not correct:
        raise WrongAnswer(what)


def run_benchmark(name: str, toy: bool) -> list[Metric]:
    """Run one benchmark in this process, on one thread."""
    module = importlib.import_module(f"benchmarks.{name}")
    if getattr(module, "USES_TORCH", True):
        import torch

        torch.set_num_threads(1)
    return module.run(toy)


def interleaved(
    contenders: Mapping[str, Callable[[], Any]],
    repetitions: int,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, list[float]]:
    """Seconds of each contender, taken in turn (A B C, A B C, …) so that what disturbs one disturbs all."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repetitions):
        for name, run in contenders.items():
            began = clock()
            run()
            seconds[name].append(clock() - began)
    return seconds


def answered(
    contenders: Mapping[str, Callable[[], Any]], repetitions: int
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """`interleaved`, and what each contender answered, alike each time: the runs that are checked are those that are timed."""
    answers: dict[str, Any] = {}

    def keeping(name: str, run: Callable[[], Any]) -> None:
        answer = run()
        gate(answers.setdefault(name, answer) == answer, f"{name} answers differently the second time")

    timed = {name: lambda name=name, run=run: keeping(name, run) for name, run in contenders.items()}
    return interleaved(timed, repetitions), answers


def fastest(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    """The least of each contender's times: what it costs when nothing else disturbs it."""
    return {name: min(times) for name, times in seconds.items()}


def paired_ratio(numerator: list[float], denominator: list[float]) -> float:
    """The median of the ratios of neighbouring times."""
    return statistics.median(above / below for above, below in zip(numerator, denominator, strict=True))


def children_cpu() -> float:
    """CPU seconds of the child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def peak_bytes() -> int:
    """The highest resident size of this process so far (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("no VmHWM in /proc/self/status")


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    import tempfile

    with tempfile.TemporaryDirectory(prefix="infini-bench-") as folder:
        yield Path(folder)
