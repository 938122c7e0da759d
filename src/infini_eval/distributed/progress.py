"""How far work has come and how long it will still take: a bar on a terminal, elsewhere a plain line now and then.

`Display` shows a line that changes; `Countdown` counts something in this process, `Progress` the samples of all replicas.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch.distributed import Store

    from infini_eval.distributed.launch import World

logger = logging.getLogger(__name__)
PUSH_S = 0.5  # counters travel at most this often
BAR_S = 0.5
SOON_S = 2.0  # what is over sooner and leaves no line gets no bar
BAR_WIDTH = 16
PLAIN_S = 30.0
POLL_S = 0.05
SCORE_UNIT = 10_000  # the store counts integers; scores are fractions
COUNTERS = ("samples", "tokens", "judged", "score")


class Look(NamedTuple):
    """What is shown at one moment: a line, and the share that is done in 0..1."""

    line: str
    share: float


class Display:
    """Shows, from a thread of its own, what `opened()` says; use it as a context manager.

    Args:
        opened: called once in that thread; gives the function that looks.
        say: takes the plain lines.
        every_s: seconds between two of them.
        last: whether the state at the end gets a line even where no line came before it.
    """

    def __init__(
        self,
        opened: Callable[[], Callable[[], Look]],
        say: Callable[[str], None],
        *,
        every_s: float | None = None,
        last: bool = True,
    ) -> None:
        self._opened, self._say, self._last = opened, say, last
        self._every_s = PLAIN_S if every_s is None else every_s
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._show, name="progress", daemon=True)

    def __enter__(self) -> Display:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        self._thread.join()

    def _show(self) -> None:
        try:
            look = self._opened()
            (self._show_bar if sys.stderr.isatty() else self._show_lines)(look)
        except RuntimeError as error:  # the store is gone, which is the monitor's to report
            logger.debug("progress ends: %s", error)

    def _show_lines(self, look: Callable[[], Look]) -> None:
        last = None
        while not self._closed.wait(self._every_s):
            last = look().line
            self._say(last)
        if (last is not None or self._last) and (line := look().line) != last:
            self._say(line)

    def _show_bar(self, look: Callable[[], Look]) -> None:
        if not self._last and self._closed.wait(SOON_S):
            return
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar
        from rich.table import Column

        # one line, cut at its end: other ranks write between, and a second line would be drawn over theirs
        bar_column = BarColumn(BAR_WIDTH, table_column=Column(min_width=BAR_WIDTH))
        columns: list[Any] = [bar_column, TextColumn("{task.description}", markup=False)]
        console = Console(stderr=True)
        # what is printed meanwhile must go above the bar; into a file or a pipe it goes as it is
        both = sys.stdout.isatty()
        with Bar(*columns, console=console, redirect_stdout=both, transient=not self._last) as bar:
            task = bar.add_task("", total=1.0)
            while True:
                closed = self._closed.wait(BAR_S)
                line, share = look()
                bar.update(task, completed=share, description=line)
                if closed:
                    return


class Countdown:
    """Counts what this process does, and shows it as "reading: 37/1,050 prompts, 0:02:10 left"; a context manager.

    Args:
        what: is done, as a participle.
        total: None where nobody knows it: then elapsed time stands for the time left.
        unit: what is counted.
        say: takes the plain lines (default: the log).
        more: something to add to the line, asked for each time.
        quiet: nothing is shown.
    """

    def __init__(
        self,
        what: str,
        total: int | None,
        unit: str,
        *,
        say: Callable[[str], None] | None = None,
        every_s: float | None = None,
        more: Callable[[], str] | None = None,
        quiet: bool = False,
    ) -> None:
        self._what, self._total, self._unit, self._more = what, total, unit, more
        self.done = 0
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._display = Display(lambda: self.look, say or _log, every_s=every_s, last=False)
        self._quiet = quiet

    def add(self, count: int = 1) -> None:
        """Count more; from any thread."""
        with self._lock:
            self.done += count

    def set(self, done: int, total: int | None = None) -> None:
        """State the count, and the total where it is known only now."""
        self.done = done
        self._total = self._total if total is None else total

    def look(self) -> Look:
        """The line of this moment."""
        elapsed = time.monotonic() - self._began
        count = f"{self.done:,}" if self._total is None else f"{self.done:,}/{self._total:,}"
        parts = [f"{self._what}: {count} {self._unit}", time_left(self.done, self._total, elapsed)]
        if self._more is not None:
            parts.append(self._more())
        share = min(1.0, self.done / self._total) if self._total else 0.0
        return Look(", ".join(part for part in parts if part), share)

    def __enter__(self) -> Countdown:
        if not self._quiet:
            self._display.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._quiet:
            self._display.__exit__(kind, error, trace)


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
        parts.append(f"{clock(left)} left" if left is not None else "time left unknown")
        return ", ".join(parts)

    def seconds_left(self, planned: int, planned_tokens: int | None, seconds: float) -> float | None:
        """Estimate by tokens where their number is known (long samples come first), else by samples; None before the first."""
        done, total = (self.tokens, planned_tokens) if planned_tokens else (self.samples, planned)
        return max(0, total - done) * seconds / done if done else None


@dataclass
class InHand:
    """A batch that a replica computes: its longest sample, that one's tokens, and how much of the batch is read."""

    sample: str
    tokens: int
    planned: int  # tokens of the whole batch that will be computed
    read: int = 0

    @property
    def share(self) -> float:
        """The part that is read, in 0..1."""
        return min(1.0, self.read / self.planned) if self.planned else 0.0


class Progress:
    """Counts what this rank does and, on rank 0, shows what all do until the last has ended; a context manager.

    `planned` samples and `planned_tokens` are what this attempt still has to do. Only leaders of replicas count.
    """

    def __init__(
        self,
        world: World,
        planned: int,
        planned_tokens: int | None = None,
        *,
        name: str = "progress",
        every_s: float | None = None,
    ) -> None:
        self._world, self._planned, self._planned_tokens, self._name = world, planned, planned_tokens, name
        self._keys = {counter: f"{name}/{counter}" for counter in COUNTERS}
        self._pending = dict.fromkeys(COUNTERS, 0)
        self._local = dict.fromkeys(COUNTERS, 0)
        self._in_hand: tuple[tuple[object, InHand], ...] = ()  # replaced, not changed: the display reads it meanwhile
        self._pushed = self._started = time.monotonic()
        shows = world.is_main and planned > 0
        self._display = Display(self._open, _log, every_s=every_s) if shows else None

    def begin(self, batch: object, sample: str, tokens: int, planned: int) -> None:
        """Say what this replica has taken in hand: a batch's longest sample with its tokens, and the batch's tokens."""
        self._in_hand = (*self._in_hand, (batch, InHand(sample, tokens, planned)))
        self._push()

    def end(self, batch: object) -> None:
        """Say that a batch is answered."""
        self._in_hand = tuple(each for each in self._in_hand if each[0] is not batch)
        self._push()

    def add(self, samples: int = 0, tokens: int = 0, score: float | None = None) -> None:
        """Count finished samples, computed tokens and one sample's score; cheap enough for every step."""
        self._pending["samples"] += samples
        self._pending["tokens"] += tokens
        self._read(tokens)
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
        if self._display is not None:
            self._display.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._push()
            self._wait_for_the_others()
        if self._display is not None:
            self._display.__exit__(kind, error, trace)

    def _wait_for_the_others(self) -> None:
        """Rank 0 goes on showing while others compute, for as long as they live; a stop ends the waiting."""
        store, world = self._world.store, self._world
        if store is None:
            return
        ended = store.add(f"{self._name}/ended", 1)
        world.set_status("waiting for the other replicas")
        while ended < world.world_size and not world.stop.requested:
            time.sleep(POLL_S if world.is_main else 10 * POLL_S)
            ended = store.add(f"{self._name}/ended", 0)

    def _read(self, tokens: int) -> None:
        """Replicas read their batches in turn; what several in flight read is counted for the first that wants it."""
        for _, batch in self._in_hand:
            taken = min(tokens, batch.planned - batch.read)
            batch.read += taken
            tokens -= taken
            if tokens <= 0:
                return

    def _push(self) -> None:
        self._pushed = time.monotonic()
        store = self._world.store
        for counter, number in self._pending.items():
            if store is None:
                self._local[counter] += number
            elif number:
                store.add(self._keys[counter], number)
        self._pending = dict.fromkeys(COUNTERS, 0)
        if store is not None:
            store.set(f"{self._name}/hand/{self._world.rank}", json.dumps(self._longest()))

    def _longest(self) -> list[Any] | None:
        """Of the longest batch in hand: sample, tokens, share read."""
        longest = max((batch for _, batch in self._in_hand), key=lambda batch: batch.tokens, default=None)
        return None if longest is None else [longest.sample, longest.tokens, round(longest.share, 3)]

    def _longest_of_all(self, store: Store | None) -> list[Any] | None:
        if store is None:
            return self._longest()
        keys = [f"{self._name}/hand/{rank}" for rank in range(self._world.world_size)]
        hands = [json.loads(store.get(key)) for key in keys if store.check([key])]
        return max((hand for hand in hands if hand), key=lambda hand: hand[1], default=None)

    def _open(self) -> Callable[[], Look]:
        run_store = self._world.run_store
        store = run_store.new_client(10.0) if run_store else None
        return lambda: self._look(store)

    def _look(self, store: Store | None) -> Look:
        totals, elapsed = self.totals(store), time.monotonic() - self._started
        line = totals.line(self._planned, self._planned_tokens, elapsed)
        longest = self._longest_of_all(store)
        if longest is not None:
            sample, tokens, share = longest
            size = f" ({tokens:,} tokens)" if tokens else ""
            line += f"; longest in hand {100 * share:.0f} % read: {sample}{size}"
        done, total = totals.samples, self._planned
        if self._planned_tokens:  # one long sample is one step of the samples, and many of the tokens
            done, total = totals.tokens, self._planned_tokens
        return Look(line, min(1.0, done / total))


def time_left(done: float, total: float | None, elapsed: float) -> str:
    """ "0:02:10 left" after `elapsed` seconds; the time so far where no share is known."""
    if not done or not total:
        return f"{clock(elapsed)} so far"
    return f"{clock(max(0.0, total - done) * elapsed / done)} left"


def clock(seconds: float) -> str:
    """Hours, minutes and seconds: 0:02:10."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}"


def _log(line: str) -> None:
    logger.info("%s", line)
