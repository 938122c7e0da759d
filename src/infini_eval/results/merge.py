"""Merging samples/*.jsonl into samples.parquet, in memory that does not grow with the number of records.

One pass over the lines notes in a database where each sample's counting line stands; the lines are then read again in the
order of the rows and written block by block. The database is SQLite's private temporary one: what exceeds its cache goes to
a file in TMPDIR (/var/tmp without it), which is gone with the process.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infini_eval.arrow import column
from infini_eval.errors import RunFolderError, first_line
from infini_eval.foreign import parse_json
from infini_eval.records import COLUMNS
from infini_eval.results.files import SAMPLES, os_error, replacing
from infini_eval.results.samples import SampleLine, iter_samples, sort_key

if TYPE_CHECKING:
    import pyarrow as pa

PARQUET = "samples.parquet"
INT64 = range(-(2**63), 2**63)
ARROW = {"text": "string", "integer": "int64", "number": "double", "flag": "bool"}
# Of the columns that every run fills: one that is all null has the same type in any run.
KNOWN_TYPES = {column.name: ARROW[column.kind] for column in COLUMNS if column.filled_by != "data"}
BLOCK_ROWS = 1 << 14  # a row group of the file; a block of long texts has fewer
BLOCK_BYTES = 1 << 25
CHUNK = 1000  # lines that go to the database at once
CACHE_KIB = 1 << 16
MOST_OPEN = 256  # files of samples that are open at a time
CREATE = """
CREATE TABLE line (key TEXT PRIMARY KEY, failed INTEGER, no_length INTEGER, length REAL, no_depth INTEGER, depth REAL,
                   id TEXT, shape INTEGER, file INTEGER, start INTEGER, size INTEGER) WITHOUT ROWID
"""
# The line that counts is the first of its key that has not failed, else the last.
NOTE = """
INSERT INTO line VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET
    failed = excluded.failed, no_length = excluded.no_length, length = excluded.length, no_depth = excluded.no_depth,
    depth = excluded.depth, id = excluded.id, shape = excluded.shape, file = excluded.file, start = excluded.start,
    size = excluded.size
WHERE line.failed
"""
ORDER = """
CREATE TABLE row AS SELECT failed, shape, file, start, size FROM line
ORDER BY no_length, length, no_depth, depth, id, key
"""
Shape = tuple[tuple[str, type], ...]  # a record's columns and the types of their values


class _Huge:
    """Stands for the type of an integer that no column of integers can hold."""


@dataclass(frozen=True)
class MergeSummary:
    """What a merge found: rows written, of these failed, lines dropped as repeated, unreadable, and of no sample of the run.

    `notes`: a sentence on each file with lines that were left out for being none of the run's records.
    """

    path: Path
    rows: int
    failed: int
    repeated: int
    unreadable: int
    foreign: int = 0
    notes: tuple[str, ...] = ()


def merge_samples(
    folder: str | Path, planned: Container[str] | None = None, check: Callable[[], None] = lambda: None
) -> MergeSummary:
    """Merge all samples/*.jsonl into <folder>/samples.parquet, atomically; the files it reads stay as they are.

    One row a sample: the first that is "ok", else the last failure. Rows are sorted by context length, depth, id and
    key, so the same samples give the same order at every topology.

    Args:
        planned: keys of the run's samples; records of others are left out. None: every record counts.
        check: called now and then; what it raises ends the merge, and leaves the folder as it was.

    Raises:
        RunFolderError: the folder, or the system's folder of temporary files, cannot be read or written.
    """
    import pyarrow.parquet as pq

    path = Path(folder) / PARQUET
    with _indexed(folder, planned, check) as index, replacing(path) as file:
        with pq.ParquetWriter(file, index.schema(), compression="zstd") as writer:
            for table in index.blocks():
                writer.write_table(table)
                check()
        return index.summary(path)


def samples_table(folder: str | Path) -> pa.Table:
    """Every recorded column of a run, one row a sample: of samples/*.jsonl, else of samples.parquet.

    Raises:
        RunFolderError: it has neither, or none can be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with _indexed(folder, None, lambda: None) as index:
        if index.rows:
            return pa.concat_tables(index.blocks())
    try:
        return pq.ParquetFile(Path(folder) / PARQUET).read()
    except (OSError, pa.ArrowInvalid) as error:
        raise RunFolderError(f"{folder} holds no samples that can be read: {error}") from error


@contextlib.contextmanager
def _indexed(folder: str | Path, planned: Container[str] | None, check: Callable[[], None]) -> Iterator[_Index]:
    """The index of a folder's samples; it goes with the block."""
    try:
        with contextlib.closing(sqlite3.connect("", isolation_level=None)) as base:
            yield _Index(base, iter_samples(folder), planned, check)
    except sqlite3.Error as error:
        raise RunFolderError(
            f"cannot merge the samples of {str(folder)!r}: the list of them cannot be kept: {first_line(error)}",
            next_step="free some space for temporary files, or set TMPDIR to a folder that has it",
        ) from error


class _Index:
    """Where the line of each sample stands that counts, and what has to be known of all of them before one is written."""

    def __init__(
        self,
        base: sqlite3.Connection,
        lines: Iterable[SampleLine],
        planned: Container[str] | None,
        check: Callable[[], None],
    ) -> None:
        self._base, self._planned = base, planned
        self._files: list[Path] = []
        self._shapes: dict[Shape, int] = {}
        self._records = 0
        self._unreadable: Counter[str] = Counter()
        self._foreign: Counter[str] = Counter()
        for setting in (f"cache_size = -{CACHE_KIB}", "journal_mode = OFF", "synchronous = OFF", "temp_store = FILE"):
            base.execute(f"PRAGMA {setting}")
        base.execute(CREATE)
        base.execute("BEGIN")
        noted = self._noted(lines)
        while chunk := list(itertools.islice(noted, CHUNK)):
            base.executemany(NOTE, chunk)
            check()
        base.execute(ORDER)
        self.rows, self._failed = base.execute("SELECT count(*), coalesce(sum(failed), 0) FROM row").fetchone()
        self._types = self._column_types()

    def _noted(self, lines: Iterable[SampleLine]) -> Iterator[tuple[Any, ...]]:
        """What the database keeps of each line that is a record of the run."""
        for path, _, record, start, size in lines:
            if not self._files or self._files[-1] != path:
                self._files.append(path)
            if record is None:
                self._unreadable[path.name] += 1
                continue
            if self._planned is not None and record["sample_key"] not in self._planned:
                self._foreign[path.name] += 1
                continue
            self._records += 1
            (no_length, length), (no_depth, depth), name, key = sort_key(record)
            shape = self._shapes.setdefault(_shape(record), len(self._shapes))
            failed = record.get("status") == "failed"
            yield key, failed, no_length, length, no_depth, depth, name, shape, len(self._files) - 1, start, size

    def _column_types(self) -> dict[str, str]:
        """Columns in the order in which the rows have them first, and the arrow type that holds all of their values."""
        shapes = list(self._shapes)
        firsts = self._base.execute("SELECT shape FROM row GROUP BY shape ORDER BY min(rowid)")
        kinds: dict[str, set[type]] = {}
        for (number,) in firsts:
            for name, kind in shapes[number]:
                kinds.setdefault(name, set()).add(kind)
        if not kinds:
            return {name: _column_type(name, set()) for name in KNOWN_TYPES}
        return {name: _column_type(name, found - {type(None)}) for name, found in kinds.items()}

    def schema(self) -> pa.Schema:
        """Of the rows: the union of the records' columns; columns of mixed or nested type are text."""
        import pyarrow as pa

        return pa.schema([(name, getattr(pa, _CONSTRUCTORS[kind])()) for name, kind in self._types.items()])

    def blocks(self) -> Iterator[pa.Table]:
        """The rows in order, in tables of BLOCK_ROWS, or of as many as fill BLOCK_BYTES; at least one table."""
        block: list[Mapping[str, Any]] = []
        size, given = 0, False
        for record, line_size in self._in_order():
            block.append(record)
            size += line_size
            if len(block) == BLOCK_ROWS or size >= BLOCK_BYTES:
                yield self._table(block)
                block, size, given = [], 0, True
        if block or not given:
            yield self._table(block)

    def _in_order(self) -> Iterator[tuple[Mapping[str, Any], int]]:
        opened: dict[int, int] = {}
        try:
            for file, start, size in self._base.execute("SELECT file, start, size FROM row ORDER BY rowid"):
                if file not in opened:
                    if len(opened) == MOST_OPEN:
                        os.close(opened.pop(next(iter(opened))))
                    opened[file] = os.open(self._files[file], os.O_RDONLY | os.O_CLOEXEC)
                yield parse_json(os.pread(opened[file], size, start)), size
        except ValueError:
            raise RunFolderError(f"{str(self._files[file])!r} was changed while it was merged") from None
        except OSError as error:
            raise os_error(self._files[file], error, "read") from error
        finally:
            for descriptor in opened.values():
                os.close(descriptor)

    def _table(self, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
        import pyarrow as pa

        schema = self.schema()
        columns = (
            column(_fitted([row.get(name) for row in rows], kind), field.type)
            for (name, kind), field in zip(self._types.items(), schema, strict=True)
        )
        return pa.table(list(columns), schema=schema)

    def summary(self, path: Path) -> MergeSummary:
        """What was found, for who has written the rows to `path`."""
        notes = [f"{SAMPLES}/{name}: {_lines(count)} not a record" for name, count in self._unreadable.items()]
        notes += [
            f"{SAMPLES}/{name}: {_lines(count)} of no sample of this run" for name, count in self._foreign.items()
        ]
        return MergeSummary(
            path,
            self.rows,
            self._failed,
            self._records - self.rows,
            self._unreadable.total(),
            self._foreign.total(),
            tuple(f"{note}, and left out" for note in notes),
        )


_CONSTRUCTORS = {"bool": "bool_", "int64": "int64", "double": "float64", "string": "string"}


def _lines(count: int) -> str:
    return "1 line is" if count == 1 else f"{count} lines are"


def _shape(record: Mapping[str, Any]) -> Shape:
    """The record's columns and the types of their values, as few different ones as there are kinds of records."""
    huge = INT64
    return tuple(
        [(name, _Huge if type(value) is int and value not in huge else type(value)) for name, value in record.items()]
    )


def _column_type(name: str, kinds: set[type]) -> str:
    """The arrow type for a column with values of these types, nulls aside."""
    fits = {"bool": kinds <= {bool}, "int64": kinds <= {int}, "double": kinds <= {int, float}, "string": True}
    known = KNOWN_TYPES.get(name, "string" if not kinds else None)
    if known is not None and fits[known]:
        return known
    return next(kind for kind, fit in fits.items() if fit)


def _fitted(values: list[Any], kind: str) -> list[Any]:
    """A column's values as arrow takes them for that type."""
    if kind in ("bool", "int64"):
        return values
    if kind == "double":
        return [None if value is None else float(value) for value in values]
    return [value if value is None or type(value) is str else json.dumps(value) for value in values]
