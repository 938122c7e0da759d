"""The samples of a run: appended line by line as they finish, and read again."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from infini_eval.foreign import as_number, parse_json
from infini_eval.keys import hider
from infini_eval.records import SampleRecord
from infini_eval.results.files import (
    SAMPLES,
    make_folder,
    os_error,
    size_of_whole_lines,
    to_jsonable,
)

PLACED_BY = ("context_length", "depth_percent", "correct")  # numbers by which records are sorted and counted
MOST_NUMBER = 1e15
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
        self._hide = hider()
        self._sync_every_s = sync_every_s
        self._last_sync = time.monotonic()
        make_folder(self.path.parent)
        try:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
            truncate_torn_line(self.path)
        except OSError as error:
            raise os_error(self.path, error) from error

    def write(self, record: SampleRecord | Mapping[str, Any]) -> None:
        """Append one finished sample."""
        data = record.to_json() if isinstance(record, SampleRecord) else record
        line = self._hide(json.dumps(to_jsonable(data), allow_nan=False)).encode() + b"\n"
        size = os.fstat(self._descriptor).st_size
        try:
            self._append(line)
            self._sync_when_due()
        except OSError as error:
            self._cut(size)
            raise os_error(self.path, error) from error
        self.written += 1

    def close(self) -> None:
        """Bring everything to the disk and close; safe to call twice."""
        if self._descriptor < 0:
            return
        descriptor, self._descriptor = self._descriptor, -1
        try:
            os.fsync(descriptor)
        except OSError as error:
            raise os_error(self.path, error) from error
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


class SampleLine(NamedTuple):
    """One line of samples/*.jsonl, at these bytes; `record` is None where the line is not a record that can be merged."""

    path: Path
    number: int
    record: dict[str, Any] | None
    start: int
    size: int


def iter_samples(folder: str | Path) -> Iterator[SampleLine]:
    """Every line of samples/*.jsonl, files by name. A torn line (a crash, a full disk) comes with `record` None."""
    for path in sorted((Path(folder) / SAMPLES).glob("*.jsonl")):
        try:
            with path.open("rb") as lines:
                start = 0
                for number, line in enumerate(lines, 1):
                    yield SampleLine(path, number, _parse(line), start, len(line))
                    start += len(line)
        except OSError as error:
            raise os_error(path, error, "read") from error


def truncate_torn_lines(folder: str | Path) -> list[str]:
    """Cut each samples/*.jsonl after its last complete line; one note a file that had to be cut."""
    notes = []
    for path in sorted((Path(folder) / SAMPLES).glob("*.jsonl")):
        try:
            removed = truncate_torn_line(path)
        except OSError as error:
            raise os_error(path, error, "repair") from error
        if removed:
            notes.append(
                f"{SAMPLES}/{path.name}: a torn last line ({removed} bytes) is removed; its sample is computed again"
            )
    return notes


def truncate_torn_line(path: Path) -> int:
    """Truncate a file after its last newline; returns the number of bytes removed."""
    with path.open("r+b") as file:
        size, whole = file.seek(0, os.SEEK_END), size_of_whole_lines(file)
        if whole < size:
            file.truncate(whole)
            os.fsync(file.fileno())
    return size - whole


def _parse(line: bytes) -> dict[str, Any] | None:
    """The record that a whole line holds; None where it holds none that can be merged."""
    if not line.endswith(b"\n"):
        return None
    try:
        record = parse_json(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and _is_ours(record) else None


def _is_ours(record: Mapping[str, Any]) -> bool:
    """Whether what every reader relies on is there and of its kind."""
    numbers = (record.get(name) for name in PLACED_BY)
    return isinstance(record.get("sample_key"), str) and all(
        value is None or as_number(value, -MOST_NUMBER, MOST_NUMBER) is not None for value in numbers
    )


def unique_records(records: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """One record a sample key, in the order of `sort_key`: the first that is "ok", else the last failure."""
    records = list(records)
    keys, failed = (
        [record["sample_key"] for record in records],
        [record.get("status") == "failed" for record in records],
    )
    return sorted((records[row] for row in rows_that_count(keys, failed)), key=sort_key)


def rows_that_count(keys: Sequence[Hashable], failed: Sequence[bool]) -> list[int]:
    """The one row of each key that counts, in order: the first that has not failed, else the last.

    Args:
        keys: the sample of each row.
        failed: whether the row is one of a failed attempt.
    """
    chosen: dict[Hashable, int] = {}
    for row, key in enumerate(keys):
        if key not in chosen or failed[chosen[key]]:
            chosen[key] = row
    return sorted(chosen.values())


def sort_key(record: Mapping[str, Any]) -> tuple[Any, ...]:
    """By context length, depth, id and key; numbers that are not known come last."""
    numbers = [record.get(name) for name in PLACED_BY[:2]]
    return (*((value is None, value or 0) for value in numbers), str(record.get("id")), record["sample_key"])
