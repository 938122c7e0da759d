"""From rows to work items: samples chosen, prompts tokenised once over all ranks, batches with their ids one ahead."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import logging
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from infini_eval.api.backend import Backend, Batch, WorkItem, no_ids
from infini_eval.api.task import LoadedData, Task
from infini_eval.config import EvalConfig
from infini_eval.data.reading import load_data, select_samples
from infini_eval.distributed.launch import World
from infini_eval.distributed.progress import Countdown
from infini_eval.distributed.work_queue import WorkQueue
from infini_eval.errors import ConfigError, DataError
from infini_eval.evaluation.messages import log_notes
from infini_eval.records import NeedlePosition, Sample

AHEAD = 1  # batches that wait with their ids: what is held does not grow with the samples
KEPT_BYTES = 16 << 20  # token ids (4 bytes each) that a rank keeps until they are computed; of the rest it keeps none
HEX = "hex"
HERE = ("sample", "ids")  # fields of WorkItem that never travel


def load_task_data(config: EvalConfig, task: Task) -> LoadedData:
    """All rows of the data that pass the configuration's filters, read with the task's own options."""
    filters = {"num_shots": config.num_shots, "num_digits": config.num_digits}
    options = task.with_defaults(dict(config.task_options))
    more = {"options": options} if options else {}
    return load_data(
        task,
        config.eval_dataset_path,
        columns=dict(config.columns),
        split=config.split,
        **filters,
        context_length=config.context_length,
        depths=config.depths,
        **more,
    )


def choose_samples(config: EvalConfig, task: Task, world: World) -> tuple[LoadedData, list[Sample]]:
    """The rows to ask, validated; alike on every rank."""
    data = load_task_data(config, task)
    samples, notes = (task.select or select_samples)(data.samples, config.num_samples, config.seed)
    findings = [str(finding) for finding in task.validate(samples)]
    if findings and config.strict_data:
        raise DataError(
            f"{data.source} does not pass validation: " + "; ".join(findings),
            next_step="mend the data, or leave --strict-data out to be warned only",
        )
    log_notes(world, [*data.notes, *notes])
    log_notes(world, findings, logging.WARNING)
    if config.preprocess is not None:
        samples, note = preprocessed(samples, config.preprocess)
        log_notes(world, [note])
    return data, samples


def preprocessed(samples: Sequence[Sample], what: str) -> tuple[list[Sample], str]:
    """The samples with the prompts that the user's function makes of them, and what became of their length.

    The column `characters_before` keeps the old length. The function must give the same prompt on every rank and in every
    attempt. ConfigError where it cannot be found, fails, or returns no text.
    """
    function = prompt_function(what)
    changed = [_changed(sample, function, what) for sample in samples]
    before, after = (sum(len(sample.prompt) for sample in group) for group in (samples, changed))
    return changed, f"--preprocess {what}: prompts have {100 * after / max(1, before):.1f} % of their characters"


def _changed(sample: Sample, function: Callable[[Sample], str], what: str) -> Sample:
    try:
        prompt = function(sample)
    except Exception as error:
        raise ConfigError(
            f"--preprocess {what} fails on the sample {sample.id!r}: {type(error).__name__}: {error}",
            next_step="mend the function",
        ) from error
    if not isinstance(prompt, str) or not prompt:
        raise ConfigError(
            f"--preprocess {what} made {prompt!r:.60} of the sample {sample.id!r}", valid="a prompt, as text"
        )
    turns = sample.turns if prompt == sample.prompt else ()  # a prompt that was made anew is one message
    return replace(
        sample, prompt=prompt, turns=turns, columns={**sample.columns, "characters_before": len(sample.prompt)}
    )


def prompt_function(what: str) -> Callable[[Sample], str]:
    """What --preprocess names; ConfigError where there is no such function."""
    place, _, name = what.rpartition(":")
    valid = "MODULE:FUNCTION or FILE.py:FUNCTION, a function from a Sample to a prompt"
    if not place or not name:
        raise ConfigError(f"--preprocess {what!r}", valid=valid)
    try:
        function = getattr(_module(place), name)
    except (ImportError, OSError, AttributeError, SyntaxError) as error:
        raise ConfigError(f"--preprocess {what!r} cannot be imported: {error}", valid=valid) from error
    if not callable(function):
        raise ConfigError(f"--preprocess {what!r} is {type(function).__name__}", valid=valid)
    return function  # type: ignore[no-any-return]


def preprocess_identity(what: str) -> dict[str, str]:
    """For the manifest: the function's name, and the digest of the file that it is written in."""
    file = inspect.getsourcefile(prompt_function(what))
    source = Path(file).read_bytes() if file else b""
    return {"function": Path(what).name, "source": hashlib.sha256(source).hexdigest()[:16]}


def _module(place: str) -> Any:
    """A module by its name, also of the folder that the command is called in, or by its file."""
    if place.endswith(".py"):
        found = importlib.util.spec_from_file_location(Path(place).stem, place)
        assert found is not None and found.loader is not None, "every .py file has a loader"
        module = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
        return module
    sys.path.insert(0, "")
    try:
        return importlib.import_module(place)
    finally:
        sys.path.remove("")


def prepare_items(
    task: Task, backend: Backend, samples: Sequence[Sample], world: World, every_s: float | None = None
) -> list[WorkItem]:
    """All samples as the backend will see them, without the ids of those that this rank does not keep.

    Ranks share the work (r, r + world size, …) and exchange lengths, positions and excerpts; rank 0 shows its own part.
    every_s: seconds between two lines of progress.
    """
    rank, size = world.rank, world.world_size
    own = samples[rank::size]
    unit = "samples" if size == 1 else f"samples of rank 0 ({len(samples):,} in all)"
    share = []
    with Countdown("tokenising", len(own), unit, every_s=every_s, quiet=not world.is_main) as counted:
        for item in _tokenised(task, backend, own, world):
            share.append(item)
            counted.add()
    facts = world.all_gather_object("prepared", [_facts(item) for item in share])
    return [
        share[row // size] if row % size == rank else _from_facts(sample, facts[row % size][row // size])
        for row, sample in enumerate(samples)
    ]


def with_ids(item: WorkItem, backend: Backend) -> WorkItem:
    """The same with its token ids, made now unless they were kept."""
    return item if len(item.ids) else replace(item, ids=backend.token_ids(item.sample))


def _tokenised(task: Task, backend: Backend, samples: Sequence[Sample], world: World) -> Iterator[WorkItem]:
    """In order, on as many threads as this rank computes with."""
    import torch

    room, lock = KEPT_BYTES, threading.Lock()

    def tokenise(sample: Sample) -> WorkItem:
        nonlocal room
        world.raise_if_stopped()
        item = backend.prepare(sample, task.locate(sample))
        with lock:
            keep = item.ids.nbytes <= room
            room -= item.ids.nbytes if keep else 0
        return item if keep else replace(item, ids=no_ids())

    pool = ThreadPoolExecutor(torch.get_num_threads(), thread_name_prefix="tokenise")
    try:
        yield from pool.map(tokenise, samples)
    finally:
        pool.shutdown(cancel_futures=True)


def _facts(item: WorkItem) -> dict[str, Any]:
    """What travels to the other ranks, as JSON; bytes as their hexadecimal digits."""
    facts = {field.name: getattr(item, field.name) for field in fields(item) if field.name not in HERE}
    digits = {name: {HEX: value.hex()} for name, value in facts.items() if isinstance(value, bytes)}
    return facts | digits | {"position": asdict(item.position)}


def _from_facts(sample: Sample, facts: Mapping[str, Any]) -> WorkItem:
    of_bytes = {name: bytes.fromhex(value[HEX]) for name, value in facts.items() if _is_hex(value)}
    position = NeedlePosition(**facts["position"])
    return WorkItem(sample=sample, ids=no_ids(), **{**facts, **of_bytes, "position": position})


def _is_hex(value: Any) -> bool:
    return isinstance(value, dict) and list(value) == [HEX]


class Prefetched(NamedTuple):
    """A batch with its number in the plan, and its items by row, ids included."""

    number: int
    batch: Batch
    rows: Mapping[int, WorkItem]


class BatchPrefetcher:
    """Batches from the queue with their token ids, made by a thread of its own one batch ahead of the compute.

    Use it as a context manager, and iterate over it.

    Near the end of the work a batch is drawn only when it is asked for, so that no replica waits for what another one
    holds back. What fails in the thread is raised where the next batch is asked for. `queue` must have a connection
    to the store of its own.
    """

    def __init__(self, queue: WorkQueue, batches: Sequence[Batch], items: Sequence[WorkItem], backend: Backend) -> None:
        self._queue, self._batches, self._items, self._backend = queue, batches, items, backend
        self._changed = threading.Condition()
        self._ready: deque[Prefetched | BaseException | None] = deque()
        self._asked = 0  # batches asked for and not yet drawn; below zero: drawn ahead
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="prefetch", daemon=True)

    def __enter__(self) -> BatchPrefetcher:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if error is None:  # after an error it may wait for a peer that is gone; it is a daemon
            self._thread.join()

    def __iter__(self) -> Iterator[Prefetched]:
        while True:
            with self._changed:
                self._asked += 1
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._ready)
                ready = self._ready.popleft()
            if isinstance(ready, BaseException):
                raise ready
            if ready is None:
                return
            yield ready

    def _work(self) -> None:
        try:
            more = True
            while more and self._wanted():
                number = self._queue.pull()
                more = number is not None
                self._put(None if number is None else self._prefetched(number))
        except BaseException as error:  # whatever it is, the thread that computes must not wait for ever
            self._put(error)

    def _wanted(self) -> bool:
        """Wait until a batch should be drawn; False at the end."""
        ahead = AHEAD if self._queue.has_plenty() else 0
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._asked + ahead > 0)
            self._asked -= 1
            return not self._closed

    def _prefetched(self, number: int) -> Prefetched:
        batch = self._batches[number]
        return Prefetched(number, batch, {row: with_ids(self._items[row], self._backend) for row in batch.rows})

    def _put(self, ready: Prefetched | BaseException | None) -> None:
        with self._changed:
            self._ready.append(ready)
            self._changed.notify_all()
