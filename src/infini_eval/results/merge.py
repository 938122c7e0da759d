"""From the replicas' append-only files to samples.parquet, and to the JSON file of --results_file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infini_eval.errors import RunFolderError
from infini_eval.results.files import make_folder, refusal, write_atomically, write_json
from infini_eval.results.manifest import read_manifest
from infini_eval.results.resume import iter_samples

if TYPE_CHECKING:
    import pyarrow as pa

PARQUET = "samples.parquet"
INT64 = range(-(2**63), 2**63)
# Types of our own columns, so that a run in which a column is all null has the same schema as any other.
STRINGS = "sample_key id answer generation_text finish_reason status error extracted prompt_sha256 excerpt"
INTEGERS = "context_length num_shots num_digits generation_tokens prompt_tokens needle_token_start needle_token_end"
INTEGERS += " needle_segment question_segment compressions phase replica reused_tokens"
FLOATS = "depth_percent correct seconds"
BOOLEANS = "needle_straddles_border answer_crosses_border"
KNOWN_TYPES = {
    **dict.fromkeys(STRINGS.split(), "string"),
    **dict.fromkeys(INTEGERS.split(), "int64"),
    **dict.fromkeys(FLOATS.split(), "double"),
    **dict.fromkeys(BOOLEANS.split(), "bool"),
}


@dataclass(frozen=True)
class MergeSummary:
    """What a merge found: rows written, of these failed, lines dropped as repeated and as unreadable."""

    path: Path
    rows: int
    failed: int
    repeated: int
    unreadable: int


def merge_samples(folder: str | Path) -> MergeSummary:
    """Merge all samples/*.jsonl into <folder>/samples.parquet, atomically; the files it reads stay as they are.

    One row a sample: the first that is "ok", else the last failure. Rows are sorted by context length, depth, id and
    key, so the same samples give the same order at every topology.
    """
    import pyarrow.parquet as pq

    path = Path(folder) / PARQUET
    lines = list(iter_samples(folder))
    records = [line.record for line in lines if line.record is not None]
    rows = unique_records(records)
    sink = _buffer()
    pq.write_table(_table(rows), sink, compression="zstd")
    write_atomically(path, sink.getvalue().to_pybytes())
    failed = sum(row.get("status") == "failed" for row in rows)
    return MergeSummary(path, len(rows), failed, len(records) - len(rows), len(lines) - len(records))


def unique_records(records: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """One record a sample key, in the order that `merge_samples` documents."""
    chosen: dict[str, Mapping[str, Any]] = {}
    for record in records:
        held = chosen.get(record["sample_key"])
        if held is None or held.get("status") == "failed":
            chosen[record["sample_key"]] = record
    return sorted(chosen.values(), key=_sort_key)


def check_results_file(path: str | Path) -> None:
    """Make the folder of --results_file and prove that the file can be written, before the evaluation starts."""
    path = Path(path)
    make_folder(path.parent)
    existed = path.exists()
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o666))
        if not existed:
            path.unlink()
    except OSError as error:
        problem = refusal(path, error)
        raise RunFolderError(problem.problem, next_step="name another file with --results_file") from error


def write_results_file(folder: str | Path, path: str | Path, *, failed_as_wrong: bool = False) -> None:
    """Write the JSON of --results_file from a finished run: `evaluation_summary` and `depth_results`.

    Accuracies are 0..1. Failed samples count as neither right nor wrong unless `failed_as_wrong`.
    """
    rows = unique_records(line.record for line in iter_samples(folder) if line.record is not None)
    depths: dict[float | None, list[float]] = {}
    for row in rows:
        depth = row["depth_percent"]
        values = depths.setdefault(None if depth is None else float(depth), [])
        value = 0.0 if row.get("correct") is None and failed_as_wrong else row.get("correct")
        values += [] if value is None else [float(value)]
    summary = _evaluation_summary(folder, [value for values in depths.values() for value in values])
    by_depth = sorted((depth, values) for depth, values in depths.items() if depth is not None)
    results = [{"depth": depth, **_totals(values)} for depth, values in by_depth]
    write_json(Path(path), {"evaluation_summary": summary, "depth_results": results})


def _evaluation_summary(folder: str | Path, values: Sequence[float]) -> dict[str, Any]:
    manifest = read_manifest(folder)
    settings = {**manifest.environment, **manifest.identity}
    totals = _totals(values)
    return {
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "checkpoint_path": settings.get("ckpt_path"),
        "dataset_path": settings.get("eval_dataset_path"),
        "num_samples": settings.get("num_samples"),
        "seed": settings.get("seed"),
        "overall_accuracy": totals["accuracy"],
        "total_correct": totals["correct"],
        "total_samples": totals["total"],
    }


def _totals(values: Sequence[float]) -> dict[str, Any]:
    correct = sum(values)
    whole = int(correct) if correct == int(correct) else correct
    return {"correct": whole, "total": len(values), "accuracy": correct / len(values) if values else None}


def _sort_key(record: Mapping[str, Any]) -> tuple[Any, ...]:
    numbers = [record.get(name) for name in ("context_length", "depth_percent")]
    return (*((value is None, value or 0) for value in numbers), str(record.get("id")), record["sample_key"])


def _buffer() -> pa.BufferOutputStream:
    import pyarrow as pa

    return pa.BufferOutputStream()


def _table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """A table with the union of the rows' columns; columns of mixed or nested type become text."""
    import pyarrow as pa

    names = list(dict.fromkeys(name for row in rows for name in row)) or list(KNOWN_TYPES)
    columns = {name: [row.get(name) for row in rows] for name in names}
    types = {name: _column_type(name, values) for name, values in columns.items()}
    arrays = [pa.array([_fit(value, types[name]) for value in columns[name]], types[name]) for name in names]
    return pa.table(arrays, names=names)


def _column_type(name: str, values: Sequence[Any]) -> str:
    kinds = {type(value) for value in values if value is not None}
    in_range = all(value in INT64 for value in values if type(value) is int)
    fits = {
        "bool": kinds <= {bool},
        "int64": kinds <= {int} and in_range,
        "double": kinds <= {int, float} and in_range,
        "string": True,
    }
    known = KNOWN_TYPES.get(name, "string" if not kinds else None)
    if known is not None and fits[known]:
        return known
    return next(kind for kind, fit in fits.items() if fit)


def _fit(value: Any, kind: str) -> Any:
    if value is None or kind in ("bool", "int64"):
        return value
    if kind == "double":
        return float(value)
    return value if isinstance(value, str) else json.dumps(value)
