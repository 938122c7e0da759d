"""Files of records (jsonl, parquet, csv) as arrow tables of known columns; a damaged line costs that line only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from infini_eval.errors import DataError
from infini_eval.results.jsonl_files import read_jsonl
from infini_eval.results.record_columns import FLAGS, NUMBERS, TEXTS, no_rows

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".jsonl", ".parquet", ".csv")


@dataclass(frozen=True)
class RecordFile:
    """One file's records: the wanted columns (absent ones are null) and what had to be said about the file."""

    table: pa.Table
    present: frozenset[str]
    notes: tuple[str, ...] = ()


def read_record_file(path: Path, extra_numbers: Sequence[str] = (), without: Sequence[str] = ()) -> RecordFile:
    """Read one file; numbers become float64, flags bool, texts string. DataError where the file cannot be used.

    `extra_numbers` are further numeric columns (scores by their scorer's name), `without` leaves columns out.
    """
    numbers = dict.fromkeys([*NUMBERS, *extra_numbers])
    wanted = [name for name in (*numbers, *FLAGS, *TEXTS) if name not in without]
    readers: dict[str, Callable[[Path, list[str]], tuple[pa.Table, list[str]]]] = {
        ".jsonl": read_jsonl, ".parquet": _read_parquet, ".csv": _read_csv,
    }  # fmt: skip
    try:
        table, notes = readers[path.suffix](path, wanted)
    except (OSError, ValueError) as error:  # arrow's errors are both
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path.name} cannot be read as {path.suffix[1:]}: {reason}") from error
    present = frozenset(name for name in wanted if name in table.column_names)
    return RecordFile(_canonical(table, wanted, path), present, tuple(notes))


def _read_parquet(path: Path, wanted: list[str]) -> tuple[pa.Table, list[str]]:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    table = file.read(columns=[name for name in wanted if name in file.schema_arrow.names])
    table.validate(full=True)  # text that is not UTF-8 is refused here, not in the middle of a report
    return table, []


def _read_csv(path: Path, wanted: list[str]) -> tuple[pa.Table, list[str]]:
    import pyarrow as pa
    import pyarrow.csv as pc

    if path.stat().st_size == 0:
        return no_rows(wanted), []
    # text columns stay text: a key "0412" must not become the number 412
    convert = pc.ConvertOptions(column_types=dict.fromkeys(TEXTS, pa.string()), strings_can_be_null=False)
    parse = pc.ParseOptions(newlines_in_values=True)
    table = pc.read_csv(path, parse_options=parse, convert_options=convert)
    return table.select([name for name in wanted if name in table.column_names]), []


def _canonical(table: pa.Table, wanted: list[str], path: Path) -> pa.Table:
    """Every wanted column in its one type, absent ones as nulls."""
    import pyarrow as pa

    columns = {}
    for name in wanted:
        target = pa.string() if name in TEXTS else pa.bool_() if name in FLAGS else pa.float64()
        if name not in table.column_names:
            columns[name] = pa.nulls(table.num_rows, target)
            continue
        try:
            columns[name] = _cast(table.column(name), target)
        except pa.ArrowInvalid as error:
            raise DataError(f"{path.name}: column {name!r} should hold {target}: {error}") from error
        except pa.ArrowNotImplementedError:
            raise DataError(f"{path.name}: column {name!r} holds {table.column(name).type}, not {target}") from None
    return pa.table(columns)


def _cast(column: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_string(target) and pa.types.is_floating(column.type):
        column = pc.cast(column, pa.int64())  # answers that a table of floats turned into 1234.0; refuses 0.5
    if pa.types.is_floating(target) and pa.types.is_boolean(column.type):
        column = pc.cast(column, pa.int8())
    return pc.cast(column, target)
