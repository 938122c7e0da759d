"""What a run folder already holds: finished samples by key, after a torn last line has been cut away."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from infini_eval.records import RunManifest
from infini_eval.results.files import SAMPLES, refusal

BLOCK = 1 << 16


@dataclass(frozen=True)
class ResumeState:
    """Where a run stands: keys of finished samples, keys of samples that failed (tried again), notes to log.

    `previous` is the manifest of the attempt before, None for a new run.
    """

    finished_keys: frozenset[str] = frozenset()
    failed_keys: frozenset[str] = frozenset()
    previous: RunManifest | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """For the trip from rank 0 to the others."""
        return {
            "finished_keys": sorted(self.finished_keys),
            "failed_keys": sorted(self.failed_keys),
            "previous": self.previous.to_json() if self.previous else None,
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ResumeState:
        return cls(
            finished_keys=frozenset(data["finished_keys"]),
            failed_keys=frozenset(data["failed_keys"]),
            previous=RunManifest.from_json(data["previous"]) if data["previous"] else None,
            notes=tuple(data["notes"]),
        )


class SampleLine(NamedTuple):
    """One line of samples/*.jsonl; `record` is None where the line is not a record."""

    path: Path
    number: int
    record: dict[str, Any] | None


def iter_samples(folder: str | Path) -> Iterator[SampleLine]:
    """Every line of samples/*.jsonl, files by name. A torn line (a crash, a full disk) comes with `record` None."""
    for path in sorted((Path(folder) / SAMPLES).glob("*.jsonl")):
        try:
            with path.open("rb") as lines:
                for number, line in enumerate(lines, 1):
                    yield SampleLine(path, number, _parse(line))
        except OSError as error:
            raise refusal(path, error, "read") from error


def read_progress(folder: str | Path) -> tuple[set[str], set[str], list[str]]:
    """Keys of finished samples, keys of samples that only failed, and a note for each line that cannot be read."""
    finished: set[str] = set()
    failed: set[str] = set()
    notes = []
    for path, number, record in iter_samples(folder):
        if record is None:
            notes.append(f"{SAMPLES}/{path.name}, line {number} is not a record; its sample is computed again")
        else:
            (failed if record.get("status") == "failed" else finished).add(record["sample_key"])
    return finished, failed - finished, notes


def heal_samples(folder: str | Path) -> list[str]:
    """Cut each samples/*.jsonl after its last complete line; one note a file that had to be cut."""
    notes = []
    for path in sorted((Path(folder) / SAMPLES).glob("*.jsonl")):
        try:
            removed = cut_torn_line(path)
        except OSError as error:
            raise refusal(path, error, "repair") from error
        if removed:
            notes.append(
                f"{SAMPLES}/{path.name}: a torn last line ({removed} bytes) is removed; its sample is computed again"
            )
    return notes


def cut_torn_line(path: Path) -> int:
    """Truncate a file after its last newline; returns the number of bytes removed."""
    with path.open("r+b") as file:
        end = size = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - BLOCK)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            file.truncate(end)
            os.fsync(file.fileno())
    return size - end


def _parse(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and isinstance(record.get("sample_key"), str) else None
