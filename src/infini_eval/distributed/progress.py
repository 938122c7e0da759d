"""How far all replicas have come: a bar on rank 0 of a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.distributed import Store

    from infini_eval.distributed.launch import World

logger = logging.getLogger(__name__)
PUSH_S = 0.5  # counters travel at most this often
BAR_S = 0.5
PLAIN_S = 30.0
SCORE_UNIT = 10_000  # the store counts integers; scores are fractions
COUNTERS = ("samples", "tokens", "judged", "score")


@dataclass(frozen=True)
class Totals:
    """Sums over all replicas: samples and tokens done in this attempt, samples judged and the sum of their scores."""

    samples: int = 0
    tokens: int = 0
    judged: int = 0
    score: float = 0.0

    def line(self, planned: int, planned_tokens: int | None, seconds: float) -> str:
        """Write one line for people: samples, tokens/s, running accuracy, time left."""
        rate = self.tokens / seconds if seconds > 0 else 0.0
        parts = [f"{self.samples}/{planned} samples", f"{rate:,.0f} tokens/s"]
        if self.judged:
            parts.append(f"accuracy {100 * self.score / self.judged:.1f} % (n={self.judged})")
        left = self.seconds_left(planned, planned_tokens, seconds)
        parts.append(f"{_clock(left)} left" if left is not None else "time left unknown")
        return ", ".join(parts)

    def seconds_left(self, planned: int, planned_tokens: int | None, seconds: float) -> float | None:
        """Estimate by tokens where their number is known (long samples come first), else by samples; None before the first."""
        done, total = (self.tokens, planned_tokens) if planned_tokens else (self.samples, planned)
        return max(0, total - done) * seconds / done if done else None


class Progress:
    """Counts what this rank does and, on rank 0, shows what all have done; use it as a context manager.

    `planned` samples and `planned_tokens` are what this attempt still has to do. Only leaders of replicas count.
    """

    def __init__(
        self, world: World, planned: int, planned_tokens: int | None = None, *, name: str = "progress"
    ) -> None:
        self._world, self._planned, self._planned_tokens = world, planned, planned_tokens
        self._keys = {counter: f"{name}/{counter}" for counter in COUNTERS}
        self._pending = dict.fromkeys(COUNTERS, 0)
        self._local = dict.fromkeys(COUNTERS, 0)
        self._pushed = self._started = time.monotonic()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, samples: int = 0, tokens: int = 0, score: float | None = None) -> None:
        """Count finished samples, computed tokens and one sample's score; cheap enough for every step."""
        self._pending["samples"] += samples
        self._pending["tokens"] += tokens
        if score is not None:
            self._pending["judged"] += 1
            self._pending["score"] += round(score * SCORE_UNIT)
        if time.monotonic() - self._pushed >= PUSH_S:
            self._push()

    def totals(self, store: Store | None = None) -> Totals:
        """Sum up what all replicas have done so far; `store` is the calling thread's connection."""
        store = store or self._world.store
        if store is None:
            counts = dict(self._local)
        else:
            counts = {counter: store.add(key, 0) for counter, key in self._keys.items()}
        return Totals(counts["samples"], counts["tokens"], counts["judged"], counts["score"] / SCORE_UNIT)

    def __enter__(self) -> Progress:
        if self._world.is_main:
            self._thread = threading.Thread(target=self._show, name="progress", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._push()
        self._closed.set()
        if self._thread is not None:
            self._thread.join()

    def _push(self) -> None:
        self._pushed = time.monotonic()
        store = self._world.store
        for counter, number in self._pending.items():
            if store is None:
                self._local[counter] += number
            elif number:
                store.add(self._keys[counter], number)
        self._pending = dict.fromkeys(COUNTERS, 0)

    def _show(self) -> None:
        run_store = self._world.run_store
        store = run_store.new_client(10.0) if run_store else None
        try:
            (self._show_bar if sys.stderr.isatty() else self._show_lines)(store)
        except RuntimeError as error:  # the store is gone, which is the monitor's to report
            logger.debug("progress ends: %s", error)

    def _show_lines(self, store: Store | None) -> None:
        last = None
        while not self._closed.wait(PLAIN_S):
            last = self._line(store)
            logger.info("%s", last)
        line = self._line(store)
        if line != last and self._planned:
            logger.info("%s", line)

    def _show_bar(self, store: Store | None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar

        columns: list[Any] = [BarColumn(), TextColumn("{task.description}")]
        with Bar(*columns, console=Console(stderr=True), redirect_stdout=False) as bar:
            task = bar.add_task(self._line(store), total=self._planned)
            while True:
                closed = self._closed.wait(BAR_S)
                bar.update(task, completed=self.totals(store).samples, description=self._line(store))
                if closed:
                    return

    def _line(self, store: Store | None) -> str:
        return self.totals(store).line(self._planned, self._planned_tokens, time.monotonic() - self._started)


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}"
