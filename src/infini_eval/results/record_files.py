"""Files of records (jsonl, parquet, csv) as arrow tables of known columns; a damaged line costs that line only."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from infini_eval.arrow import column
from infini_eval.errors import DataError, first_line
from infini_eval.foreign import valid_text
from infini_eval.records import COLUMNS
from infini_eval.results.files import size_of_whole_lines

if TYPE_CHECKING:
    import pyarrow as pa


SUFFIXES = (".jsonl", ".parquet", ".csv")
REPORTED = {column.name: column.kind for column in COLUMNS if column.reported}
TEXTS = [name for name, kind in REPORTED.items() if kind == "text"]


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
    wanted = [name for name in dict.fromkeys([*REPORTED, *extra_numbers]) if name not in without]
    readers: dict[str, Callable[[Path, list[str]], tuple[pa.Table, list[str]]]] = {
        ".jsonl": read_jsonl, ".parquet": _read_parquet, ".csv": _read_csv,
    }  # fmt: skip
    try:
        table, notes = readers[path.suffix](path, wanted)
    except (OSError, ValueError) as error:  # arrow's errors are both
        raise DataError(f"{path.name} cannot be read as {path.suffix[1:]}: {first_line(error)}") from error
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
        return pa.table({name: pa.nulls(0) for name in wanted}), []
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
        target = _type(name)
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


def _type(name: str) -> pa.DataType:
    """The one type of a column: score columns, which the schema does not know, are numbers."""
    import pyarrow as pa

    return {"text": pa.string(), "flag": pa.bool_()}.get(REPORTED.get(name, "number"), pa.float64())


def _cast(column: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_string(target) and pa.types.is_floating(column.type):
        column = pc.cast(column, pa.int64())  # answers that a table of floats turned into 1234.0; refuses 0.5
    if pa.types.is_floating(target) and pa.types.is_boolean(column.type):
        column = pc.cast(column, pa.int8())
    return pc.cast(column, target)


_BLOCK_BYTES = 8 * 1024**2  # longer lines than this (a 10 MB answer) are read by the slow path
_PIECE_BYTES = 64 * 1024**2


def read_jsonl(path: Path, wanted: list[str]) -> tuple[pa.Table, list[str]]:
    """The wanted columns that the file has, with types as found, and notes on torn or broken lines."""
    import pyarrow as pa
    import pyarrow.json as pj

    with path.open("rb") as file:
        first = _parsed(file.readline(_BLOCK_BYTES))
        whole = size_of_whole_lines(file)
        file.seek(whole)
        tail = file.read().strip()
        if first is None or not whole:
            return _read_jsonl_slowly(path, wanted)
        options = pj.ParseOptions(explicit_schema=_schema(first, wanted), unexpected_field_behavior="ignore")
        blocks = pj.ReadOptions(block_size=_BLOCK_BYTES)
        try:
            tables = [
                pj.read_json(pa.BufferReader(piece), read_options=blocks, parse_options=options)
                for piece in _pieces(file, whole)
            ]
            table = pa.concat_tables(tables)
            table.validate(full=True)  # the parser lets bytes pass that are not UTF-8
        except pa.ArrowInvalid:  # mixed types, a broken line, a huge line: Python's reader copes line by line
            return _read_jsonl_slowly(path, wanted)
    # "present" must mean present in the file, and the schema fills absent columns with nulls
    seen = [name for name in wanted if name in first or table.column(name).null_count < table.num_rows]
    table = table.select(seen)
    if not tail:
        return table, []
    record = _parsed(tail)
    if record is None:
        return table, [f"{path.name}: the last line is torn (an interrupted write) and was left out"]
    extra = _from_records([record], seen)
    return pa.concat_tables([table, extra], promote_options="permissive"), []


def _pieces(file: BinaryIO, size: int) -> Iterator[bytes]:
    """The first `size` bytes, which end with a line, in pieces of whole lines.

    The parser is given one piece at a time: on a whole file it reads ahead without bound where the processor is busy.
    """
    file.seek(0)
    while size > 0:
        piece = file.read(min(_PIECE_BYTES, size))
        if len(piece) < size:
            piece += file.readline()
        size -= len(piece)
        yield piece


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _schema(first: dict[str, Any], wanted: list[str]) -> pa.Schema:
    """Types as the first record has them (an integer id, a boolean score), else as we write them."""
    import pyarrow as pa

    def kind(name: str) -> pa.DataType:
        value = first.get(name)
        if isinstance(value, bool):
            return pa.bool_()
        if isinstance(value, int) and name in TEXTS:
            return pa.int64()
        return pa.string() if isinstance(value, str) else _type(name)

    return pa.schema([(name, kind(name)) for name in wanted])


def _read_jsonl_slowly(path: Path, wanted: list[str]) -> tuple[pa.Table, list[str]]:
    records: list[dict[str, Any]] = []
    bad = []
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            record = _parsed(line)
            if record is None:
                bad.append(number)
            else:
                records.append({name: record[name] for name in wanted if name in record})
    if not bad:
        return _from_records(records, wanted), []
    shown = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
    return _from_records(records, wanted), [
        f"{path.name}: {len(bad)} line(s) are not whole JSON records and were left out (line {shown})"
    ]


def _from_records(records: list[dict[str, Any]], wanted: list[str]) -> pa.Table:
    import pyarrow as pa

    seen = [name for name in wanted if any(name in record for record in records)]
    return pa.table({name: column([_plain(record.get(name), name) for record in records]) for name in seen})


def _plain(value: Any, name: str) -> Any:
    """One JSON value as this column's type; what cannot be one is null."""
    if value is None:
        return None
    if name in TEXTS:
        text = value if isinstance(value, str) else json.dumps(value)
        return valid_text(text)  # a lone surrogate cannot be stored or printed
    if REPORTED.get(name) == "flag":
        return bool(value)
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None
