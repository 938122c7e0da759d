"""Batches from the queue with their token ids, made by a thread of its own while the batch before is computed."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType

from infini_eval.api.backend import Backend, Batch, WorkItem
from infini_eval.distributed.work_queue import WorkQueue
from infini_eval.evaluation.preparing import with_ids

AHEAD = 1  # batches that wait with their ids: what is held does not grow with the samples
Item = tuple[int, Mapping[int, WorkItem]]


class Feed:
    """Indices of batches and their prepared rows by number, one batch ahead of the compute; use it as a context manager.

    Near the end of the work a batch is drawn only when it is asked for, so that no replica waits for what another one
    holds back. What fails in the thread is raised where the next batch is asked for. `queue` must have a connection
    to the store of its own.
    """

    def __init__(
        self, queue: WorkQueue, batches: Sequence[Batch], prepared: Sequence[WorkItem], backend: Backend
    ) -> None:
        self._queue, self._batches, self._prepared, self._backend = queue, batches, prepared, backend
        self._changed = threading.Condition()
        self._ready: deque[Item | BaseException | None] = deque()
        self._asked = 0  # batches asked for and not yet drawn; below zero: drawn ahead
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="feed", daemon=True)

    def __enter__(self) -> Feed:
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

    def __iter__(self) -> Iterator[Item]:
        while True:
            with self._changed:
                self._asked += 1
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._ready)
                item = self._ready.popleft()
            if isinstance(item, BaseException):
                raise item
            if item is None:
                return
            yield item

    def _work(self) -> None:
        try:
            more = True
            while more and self._wanted():
                index = self._queue.pull()
                more = index is not None
                self._put(None if index is None else (index, self._rows(self._batches[index])))
        except BaseException as error:  # whatever it is, the thread that computes must not wait for ever
            self._put(error)

    def _wanted(self) -> bool:
        """Wait until a batch should be drawn; False at the end."""
        ahead = AHEAD if self._queue.has_plenty() else 0
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._asked + ahead > 0)
            self._asked -= 1
            return not self._closed

    def _rows(self, batch: Batch) -> dict[int, WorkItem]:
        return {row: with_ids(self._prepared[row], self._backend) for row in batch.rows}

    def _put(self, item: Item | BaseException | None) -> None:
        with self._changed:
            self._ready.append(item)
            self._changed.notify_all()
