"""Reading results folders: a run's records as one table, whoever wrote them; nothing is changed on disk."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infini_eval.errors import DataError, RunFolderError
from infini_eval.results.files import SAMPLES
from infini_eval.results.manifest import MANIFEST, content
from infini_eval.results.merge import PARQUET
from infini_eval.results.record_files import REPORTED, SUFFIXES, RecordFile, read_record_file
from infini_eval.results.samples import rows_that_count

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


def floats(column: pa.ChunkedArray) -> np.ndarray:
    """A numeric or boolean column as float64 [rows], NaN for null."""
    import numpy as np
    import pyarrow as pa

    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    chunks = [_chunk(chunk) for chunk in column.cast(pa.float64()).chunks]
    return np.concatenate([np.zeros(0), *chunks])


def codes(column: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """A text column as int64 [rows] (equal texts share a number from 0 upwards, null is -1) and the distinct texts."""
    import numpy as np
    import pyarrow as pa

    if not len(column):
        return np.zeros(0, np.int64), []
    encoded = column.combine_chunks().dictionary_encode()
    numbers = floats(pa.chunked_array([encoded.indices]))
    return np.where(np.isnan(numbers), -1, numbers).astype(np.int64), encoded.dictionary.to_pylist()


def rows(numbers: np.ndarray) -> pa.Array:
    """Row numbers as an arrow array, for `take`."""
    import numpy as np
    import pyarrow as pa

    data = np.ascontiguousarray(numbers, dtype=np.int64)
    return pa.Array.from_buffers(pa.int64(), len(data), [None, pa.py_buffer(data)])


def from_floats(values: np.ndarray) -> pa.Array:
    """float64 values as an arrow array."""
    import numpy as np
    import pyarrow as pa

    data = np.ascontiguousarray(values, dtype=np.float64)
    return pa.Array.from_buffers(pa.float64(), len(data), [None, pa.py_buffer(data)])


def without_texts(column: pa.ChunkedArray, dropped: np.ndarray) -> pa.ChunkedArray:
    """A text column with null in the `dropped` rows (bool [rows])."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    bits = pa.py_buffer(np.packbits(dropped, bitorder="little").tobytes())
    mask = pa.Array.from_buffers(pa.bool_(), len(dropped), [None, bits])
    return pc.if_else(mask, pa.nulls(len(dropped), pa.string()), column)


def _chunk(chunk: pa.Array) -> np.ndarray:
    import numpy as np

    validity, data = chunk.buffers()
    at = slice(chunk.offset, chunk.offset + len(chunk))
    if data is None or not len(chunk):
        return np.full(len(chunk), np.nan)
    values = np.frombuffer(data, np.float64)[at].copy()
    if chunk.null_count:
        known = np.unpackbits(np.frombuffer(validity, np.uint8), bitorder="little")[at]
        values[known == 0] = np.nan
    return values


HOW_TO_EVALUATE = "run_passkey_eval.py --ckpt-path CKPT --save_path DIR --eval_dataset_path DATA"
NO_DEPTHS = "the data say no depths: all samples stand in one group, shown at depth 0"
_MAX_DEPTH = 6
_OWN_PLOTS = "plots"


def is_run_folder(folder: Path) -> bool:
    """Whether an evaluation of ours wrote here."""
    return (folder / MANIFEST).is_file() or (folder / PARQUET).is_file() or any((folder / SAMPLES).glob("*.jsonl"))


def find_runs(folder: Path) -> list[Path]:
    """The run folders at or below `folder`, in natural order; a folder of foreign record files counts as a run.

    RunFolderError where the folder does not exist, DataError where it holds nothing to report on.
    """
    if not folder.exists():
        raise RunFolderError(f"no such folder: {folder}", next_step="give the folder that --save_path named")
    if not folder.is_dir():
        raise RunFolderError(f"{folder} is a file", valid="a run folder, or a folder of run folders")
    runs = [found for found in _walk(folder) if is_run_folder(found) or record_files(found)]
    if not runs:
        raise nothing_found(folder)
    return sorted(runs, key=natural_key)


def natural_key(path: Path) -> list[tuple[int, int, str]]:
    """Sorts run_2 before run_10."""
    parts = re.split(r"(\d+)", str(path))
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def _walk(folder: Path) -> list[Path]:
    """`folder` and what lies below it, without descending into a run of ours or into hidden folders."""
    found = []
    base = len(folder.parts)
    for at, children, _ in os.walk(folder):
        path = Path(at)
        found.append(path)
        if is_run_folder(path) or len(path.parts) - base >= _MAX_DEPTH:
            children.clear()
        children[:] = [child for child in children if not child.startswith(".") and child != _OWN_PLOTS]
    return found


def record_files(folder: Path) -> list[Path]:
    """The files right in `folder` that may hold records, in natural order."""
    return sorted((p for p in folder.iterdir() if p.suffix in SUFFIXES and p.is_file()), key=natural_key)


def nothing_found(folder: Path) -> DataError:
    """The error for a folder without results: empty, other files, or an older tool's pickles (which are never read)."""
    files = sorted(path.name for path in folder.rglob("*") if path.is_file())
    pickles = [name for name in files if name.endswith((".pkl", ".pickle"))]
    if pickles:
        found = f"{len(pickles)} pickled result(s) of an older tool ({pickles[0]})"
        problem = f"{folder} holds {found}; pickles are never read"
    elif not files:
        problem = f"{folder} is empty"
    else:
        shown = ", ".join(files[:5]) + (", ..." if len(files) > 5 else "")
        problem = f"{folder} holds no results ({shown})"
    return DataError(
        problem,
        valid="a run folder (manifest.json, samples/*.jsonl), or jsonl, parquet or csv files of records",
        next_step=f"evaluate {'again ' if pickles else ''}with {HOW_TO_EVALUATE}",
    )


@dataclass(frozen=True)
class RunRecords:
    """The records of one run. `planned` is None where no manifest says how many samples there should be.

    `table` has one row a sample: numbers float64, flags bool, texts string, null where unknown. `present` names the
    columns that some file really had, `scorers` the names of columns that may hold scores; `parts` are the folders of runs
    that are joined here, none for a single run. `notes` are sentences about
    what was found amiss.
    """

    folder: Path
    table: pa.Table
    present: frozenset[str]
    manifest: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()
    planned: int | None = None
    sources: tuple[Path, ...] = ()
    scorers: tuple[str, ...] = ()
    parts: tuple[Path, ...] = ()

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def number(self, name: str, only: np.ndarray | None = None) -> np.ndarray:
        """A numeric or yes/no column as float64 [rows], NaN where unknown; all NaN for a column that is not there.

        only: the numbers of the rows that are wanted.
        """
        import numpy as np

        if name not in self.table.column_names:
            return np.full(len(self) if only is None else len(only), np.nan)
        column = self.table.column(name)
        values = floats(column if only is None else column.take(rows(only)))
        values[np.isinf(values)] = np.nan
        return values

    def codes(self, name: str) -> tuple[np.ndarray, list[str]]:
        """A text column as int64 [rows] (equal texts share a number, unknown is -1) and the distinct texts."""
        return codes(self.table.column(name))

    def texts(self, name: str, numbers: np.ndarray) -> list[str | None]:
        """The texts of the rows with these numbers, None where unknown."""
        texts: list[str | None] = self.table.column(name).take(rows(numbers)).to_pylist()
        return texts

    def replace(self, **columns: pa.Array) -> RunRecords:
        """The same records with some columns set anew."""
        table = self.table
        for name, values in columns.items():
            table = table.set_column(table.column_names.index(name), name, values)
        return replace(self, table=table, present=self.present | set(columns))


def read_run(
    folder: Path, *, scorers: Sequence[str] = (), excerpts: int | None = None, without: Sequence[str] = ()
) -> RunRecords:
    """All records of one run folder; see RunRecords. DataError or RunFolderError where there is none to report on.

    `scorers` names further score columns, `without` columns to leave out. `excerpts` keeps the texts around the needle
    of wrong answers and of so many right ones a file only, which is what a report of a million samples needs.
    """
    manifest, notes = _read_manifest(folder)
    planned = (manifest or {}).get("samples_planned")
    planned = planned if isinstance(planned, int) else None
    lines = sorted((folder / SAMPLES).glob("*.jsonl"), key=natural_key)
    merged = folder / PARQUET
    if lines:
        files = lines
    elif merged.is_file():
        files = [merged]
    elif manifest is not None:
        raise _unstarted(folder, planned)
    else:
        files = record_files(folder)
        if not files:
            raise nothing_found(folder)
    tables, file_notes = _read_files(files, scorers, without, excerpts)
    records = _joined(folder, tables, manifest, (*notes, *file_notes), planned, files)
    records = replace(records, scorers=tuple(scorers))
    if not len(records):
        raise _unstarted(folder, planned)
    if lines and merged.is_file():
        records = _noting_difference(records, merged)
    return records


def _read_manifest(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    path = folder / MANIFEST
    if not path.is_file():
        return None, []
    try:
        manifest, problems = content(path)
    except RunFolderError as error:
        return {}, [f"{MANIFEST} cannot be read ({error.problem}); model and settings are unknown"]
    notes = [f"{MANIFEST} has a value that cannot be used, which is left out: {problem}" for problem in problems]
    return manifest, [*notes, *([NO_DEPTHS] if _has_no_depths(manifest) else [])]


def _has_no_depths(manifest: dict[str, Any]) -> bool:
    """Whether the data say no depth of their rows (data/columns.py: all of them are labelled 0)."""
    settings = (manifest.get("identity") or {}).get("data_settings") or {}
    return isinstance(settings, dict) and settings.get("depths") == "none"


def _read_files(
    files: Sequence[Path], scorers: Sequence[str], without: Sequence[str], excerpts: int | None
) -> tuple[list[RecordFile], list[str]]:
    tables: list[RecordFile] = []
    notes: list[str] = []
    refused: list[str] = []
    for path in files:
        try:
            found = read_record_file(path, scorers, without)
            _check_columns(found, path)
        except DataError as error:
            refused.append(error.problem)
            continue
        tables.append(found if excerpts is None else _fewer_excerpts(found, excerpts))
        notes += found.notes
    if not tables:
        raise DataError(
            "none of the files can be used:\n    " + "\n    ".join(refused),
            valid="jsonl, parquet or csv with the columns depth_percent, answer, generation_text (context_length too)",
            next_step=f"evaluate with {HOW_TO_EVALUATE}",
        )
    return tables, [*notes, *(f"ignored: {problem}" for problem in refused)]


def _fewer_excerpts(found: RecordFile, kept: int) -> RecordFile:
    import numpy as np

    table = found.table
    right = floats(table.column("correct")) == 1
    dropped = right & (np.cumsum(right) > kept)
    place = table.column_names.index("excerpt")
    return replace(found, table=table.set_column(place, "excerpt", without_texts(table.column("excerpt"), dropped)))


def _check_columns(found: RecordFile, path: Path) -> None:
    missing = [name for name in ("depth_percent", "answer", "generation_text") if name not in found.present]
    judged = "depth_percent" in found.present and "correct" in found.present
    if missing and not judged and found.table.num_rows:
        raise DataError(f"{path.name} has no column {', '.join(missing)}")


def _joined(
    folder: Path, tables: list[RecordFile], manifest: dict[str, Any] | None, notes: Sequence[str],
    planned: int | None, files: Sequence[Path],
) -> RunRecords:  # fmt: skip
    import pyarrow as pa

    table = pa.concat_tables([found.table for found in tables])
    present = frozenset().union(*(found.present for found in tables))
    table, repeated = _once_each(table)
    said = [f"{repeated} record(s) of samples that occur more than once were counted once"] if repeated else []
    return RunRecords(folder, table, present, manifest, (*notes, *said), planned, tuple(files))


def _once_each(table: pa.Table) -> tuple[pa.Table, int]:
    """One row a sample, and how many were left out; all rows where some have no key."""
    import numpy as np

    keys, distinct = codes(table.column("sample_key"))
    if len(distinct) == len(keys) or (keys < 0).any():
        return table, 0
    status, names = codes(table.column("status"))
    failed = status == (names.index("failed") if "failed" in names else -2)
    kept = rows_that_count(keys.tolist(), failed.tolist())
    return table.take(rows(np.array(kept))), len(keys) - len(kept)


def _noting_difference(records: RunRecords, merged: Path) -> RunRecords:
    """Say where samples.parquet differs from samples/*.jsonl, which are the truth; leave out what is of another run."""
    import pyarrow.compute as pc

    compared = ["sample_key", "correct"]
    try:
        others = [name for name in REPORTED if name not in compared]
        other = read_record_file(merged, without=others).table.select(compared)
    except DataError as error:
        return replace(records, notes=(*records.notes, f"{error.problem}; {SAMPLES}/*.jsonl was read instead"))
    if _alike(records.table, other):
        return records
    if records.planned == other.num_rows:  # the merge had them all, and knew them
        mine = records.table.filter(pc.is_in(records.table.column("sample_key"), other.column("sample_key")))
        if _alike(mine, other):
            foreign = f"{len(records) - len(mine)} record(s) of no sample of this run were left out"
            return replace(records, table=mine, notes=(*records.notes, foreign))
    note = f"{PARQUET} ({other.num_rows} records) differs from {SAMPLES}/*.jsonl ({len(records)} records), which is the truth"
    return replace(records, notes=(*records.notes, note))


def _alike(table: pa.Table, other: pa.Table) -> bool:
    """Whether they have the same samples and the same scores of them."""
    if table.num_rows != other.num_rows:
        return False
    ours, theirs = (one.select(other.column_names).sort_by("sample_key") for one in (table, other))
    return bool(ours.equals(theirs))


def _unstarted(folder: Path, planned: int | None) -> RunFolderError:
    of = f" of {planned} planned" if planned is not None else ""
    return RunFolderError(
        f"{folder} holds no finished sample yet (0{of})",
        next_step="run the evaluation's own command again: it continues where it stopped",
    )
