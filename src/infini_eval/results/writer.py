"""The append-only file of one replica: each finished sample is one line, on disk before the next one starts."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from infini_eval.records import SampleRecord
from infini_eval.results.files import SAMPLES, make_folder, plain_json, refusal
from infini_eval.results.resume import cut_torn_line

SYNC_EVERY_S = 5.0


def replica_name(replica: int) -> str:
    """The name of a replica's file, without its suffix."""
    return f"replica-{replica:05d}"


class SampleWriter:
    """Appends records to `<folder>/samples/<name>.jsonl`; use it as a context manager.

    A line goes out in one write: a process killed at any moment loses at most the line in hand. Lines reach the disk
    itself every `sync_every_s` seconds and on close, which matters only when the machine fails. RunFolderError with the
    reason when the disk is full or the folder unwritable; a line written in part is then removed.
    """

    def __init__(self, folder: str | Path, name: str, *, sync_every_s: float = SYNC_EVERY_S) -> None:
        self.path = Path(folder) / SAMPLES / f"{name}.jsonl"
        self.written = 0
        self._sync_every_s = sync_every_s
        self._last_sync = time.monotonic()
        make_folder(self.path.parent)
        try:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
            cut_torn_line(self.path)
        except OSError as error:
            raise refusal(self.path, error) from error

    def write(self, record: SampleRecord | Mapping[str, Any]) -> None:
        """Append one finished sample."""
        data = record.to_json() if isinstance(record, SampleRecord) else record
        line = json.dumps(plain_json(data), allow_nan=False).encode() + b"\n"
        size = os.fstat(self._descriptor).st_size
        try:
            self._append(line)
            self._sync_when_due()
        except OSError as error:
            self._cut(size)
            raise refusal(self.path, error) from error
        self.written += 1

    def close(self) -> None:
        """Bring everything to the disk and close; safe to call twice."""
        if self._descriptor < 0:
            return
        descriptor, self._descriptor = self._descriptor, -1
        try:
            os.fsync(descriptor)
        except OSError as error:
            raise refusal(self.path, error) from error
        finally:
            os.close(descriptor)

    def __enter__(self) -> SampleWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _append(self, line: bytes) -> None:
        written = os.write(self._descriptor, line)
        while written < len(line):  # a nearly full disk takes a part; the next write then tells the reason
            written += os.write(self._descriptor, line[written:])

    def _sync_when_due(self) -> None:
        now = time.monotonic()
        if now - self._last_sync >= self._sync_every_s:
            os.fsync(self._descriptor)
            self._last_sync = now

    def _cut(self, size: int) -> None:
        with contextlib.suppress(OSError):  # a resumed run removes a torn line anyway
            os.ftruncate(self._descriptor, size)
