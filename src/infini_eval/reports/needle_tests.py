"""Loading and inference tests of models at sizes in characters: one table, with how far each came and what stopped it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infini_eval.reports.model_facts import one_line
from infini_eval.results.files import write_atomically

NAME = "tests.md"
HEAD = ("model", "characters", "tokens", "test", "result", "phase", "error type", "seconds", "memory GB")
NUMBERS = (1, 2, 7, 8)  # columns that stand at the right


@dataclass(frozen=True)
class NeedleTest:
    """One model at one size. `test` is loading or inference; `phase` the last one that it reached.

    memory_gb: the measured peak of one process, in 10**9 bytes; None where it is not known, as for served models.
    """

    model: str
    characters: int
    tokens: int
    test: str
    result: str
    phase: str
    error_type: str | None
    seconds: float | None
    memory_gb: float | None

    def cells(self) -> tuple[str, ...]:
        """As the table shows them."""
        seconds, memory = ("-" if value is None else f"{value:.2f}" for value in (self.seconds, self.memory_gb))
        return (
            self.model, f"{self.characters:,}", f"{self.tokens:,}", self.test, self.result, self.phase,
            self.error_type or "-", seconds, memory,
        )  # fmt: skip


def needle_tests(folder: Path) -> list[NeedleTest]:
    """The tests whose JSON files lie in `folder`: of each model, size and kind the newest, smallest sizes first."""
    newest = {(test.test, test.model, test.characters): test for test in _all_tests(folder)}
    return sorted(newest.values(), key=lambda one: (one.test != "loading", one.model, one.characters))


def _all_tests(folder: Path) -> Iterator[NeedleTest]:
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("comparison_*.json")]
    for report in sorted(reports, key=lambda one: str(one["timestamp"])):
        for entry in report["models"]:
            yield _test(entry, "loading" if report["test_mode"] else "inference")


def _test(entry: Mapping[str, Any], test: str) -> NeedleTest:
    status, memory = entry["status"], (entry.get("loading") or entry.get("memory") or {})
    measured = memory.get("peak_bytes") or memory.get("measured_peak_bytes") or memory.get("measured_bytes")
    found = {True: "needle found", False: "needle NOT found", None: "loaded"}[entry.get("success")]
    finished = "loading the model" if test == "loading" else "answering"
    return NeedleTest(
        model=one_line(str(entry["label"])),
        characters=entry["char_count"],
        tokens=entry["context_tokens"],
        test=test,
        result=found if status == "ok" else str(status),
        phase=finished if status == "ok" else str(entry.get("phase") or "not known"),
        error_type=None if status == "ok" else one_line(str(entry.get("error_type") or "not known")),
        seconds=entry.get("seconds"),
        memory_gb=measured / 1e9 if measured else None,
    )


def render(tests: list[NeedleTest]) -> str:
    """The table as Markdown, which is also how it is printed."""
    rows = [HEAD, *(test.cells() for test in tests)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    lines = [_line(row, widths) for row in rows]
    ruled = "|".join("-" * (width + 1) + (":" if at in NUMBERS else "-") for at, width in enumerate(widths))
    return "\n".join([lines[0], f"|{ruled}|", *lines[1:]])


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    cells = (
        f"{cell:>{width}}" if at in NUMBERS else f"{cell:<{width}}"
        for at, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    return f"| {' | '.join(cells)} |"


def write(tests: list[NeedleTest], folder: Path) -> Path:
    """Write tests.md into `folder`."""
    write_atomically(folder / NAME, f"{render(tests)}\n".encode())
    return folder / NAME
