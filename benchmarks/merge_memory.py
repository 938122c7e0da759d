"""Merging a million records of eight replicas: CPU seconds and the highest resident size of the process that merges.

Every tenth sample has failed once and was answered later by another replica, as a resumed run has it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks._harness import Metric, gate, peak_bytes, temporary_folder
from infini_eval.results.files import SAMPLES
from infini_eval.results.merge import merge_samples
from infini_eval.results.samples import replica_name
from infini_eval.testing.fake_runs import DEPTHS, FakeRun, fake_records

USES_TORCH = False
RECORDS, TOY_RECORDS = 1_000_000, 2_000
REPLICAS = 8
RETRIED = 10  # one in so many


def run(toy: bool) -> list[Metric]:
    with temporary_folder() as folder:
        samples, size = write(folder, TOY_RECORDS if toy else RECORDS)
        before, began = peak_bytes(), time.process_time()
        summary = merge_samples(folder)
        seconds, peak = time.process_time() - began, peak_bytes()
        gate((summary.rows, summary.failed) == (samples, 0), f"{samples} samples were merged as {summary}")
        gate(summary.repeated == -(-samples // RETRIED), f"{summary.repeated} repeated lines")
        written = summary.path.stat().st_size
    what = f"{samples:,} samples, {size / 1e9:.2f} GB of jsonl into {written / 1e6:.0f} MB"
    return [
        Metric("merge_cpu_seconds", seconds, "CPU s", "<=", 60.0, what),
        Metric("merge_peak_mb", peak / 1e6, "MB", "<=", 600.0, f"{before / 1e6:.0f} MB before the merge"),
    ]


def write(folder: Path, records: int) -> tuple[int, int]:
    """Made-up samples of one run; how many, and the bytes of all files."""
    (folder / SAMPLES).mkdir()
    samples = 0
    files = [(folder / SAMPLES / f"{replica_name(number)}.jsonl").open("w") for number in range(REPLICAS)]
    for samples, record in enumerate(made(records), 1):
        line = json.dumps(record) + "\n"
        if samples % RETRIED == 1:
            files[-1 - samples % REPLICAS].write(json.dumps(record | {"status": "failed", "correct": None}) + "\n")
        files[samples % REPLICAS].write(line)
    for file in files:
        file.close()
    return samples, sum(path.stat().st_size for path in (folder / SAMPLES).iterdir())


def made(records: int) -> Iterator[dict[str, Any]]:
    """At least so many records, a cell at a time."""
    for record in fake_records(FakeRun(per_cell=-(-records // len(DEPTHS)))):
        yield record.to_json()
