"""Rows of text files as tables: csv, tsv, jsonl and json, plain or packed as .gz or .zst; nothing in them is guessed at."""

from __future__ import annotations

import csv
import io
import json
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from infini_eval.arrow import column
from infini_eval.errors import DataError, first_line, in_one_line
from infini_eval.foreign import parse_json, shown
from infini_eval.records import COLUMNS

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["parquet", "arrow", "csv", "jsonl", "json"]
KINDS: dict[str, Kind] = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
}
PACKED = {".gz": "gzip", ".zst": "zstd"}
SUFFIXES = ".parquet, .csv, .tsv, .jsonl, .json (the last four also as .gz or .zst)"
# What lies beside data and describes them.
BESIDE = frozenset({"dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json", "config.json"})
# Columns that hold numbers wherever they occur: a csv file has no types, and a key "0412" must not become 412.
NUMBERS = {column.name: column.kind for column in COLUMNS if column.kind in ("integer", "number")} | {
    "token_count": "integer",
    "num_tokens": "integer",
}


def kind_of(path: Path) -> Kind | None:
    """parquet, csv, jsonl or json, as the name says; None where it names no file of rows."""
    packed = path.suffix in PACKED
    kind = KINDS.get(Path(path.stem).suffix if packed else path.suffix)
    return None if path.name in BESIDE or (packed and kind == "parquet") else kind


def read_text_table(path: Path, kind: str) -> pa.Table:
    """The rows of a csv, jsonl or json file.

    Raises:
        DataError: it is not what its name says; the line where that shows is named.
        OSError: it cannot be read.
    """
    readers = {"csv": _csv, "jsonl": _json_lines, "json": _json}
    try:
        return readers[kind](path)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error
    except (csv.Error, EOFError, RecursionError, zlib.error) as error:
        raise DataError(f"{path} cannot be read as {kind}: {first_line(error)}") from error


def table_of_rows(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows as a table with every column that one of them has; a column of mixed types becomes text, as JSON writes it."""
    import pyarrow as pa

    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table({name: array_of([row.get(name) for row in rows]) for name in names})


def array_of(values: Sequence[Any]) -> pa.Array:
    """Values as a column, mixed types as text."""
    import pyarrow as pa

    try:
        return column(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return column([None if value is None else _text(value) for value in values], pa.string())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _opened(path: Path) -> io.TextIOWrapper:
    """The text of a file, unpacked, without a byte order mark."""
    import pyarrow as pa

    stream = pa.input_stream(str(path), compression=PACKED.get(path.suffix))
    return io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")


def _csv(path: Path) -> pa.Table:
    """Every column as text but those that are known to hold numbers; an empty cell is a missing value."""
    limit = csv.field_size_limit(sys.maxsize)  # a prompt may be longer than the usual limit of 131,072 characters
    try:
        with _opened(path) as file:
            lines = csv.reader(file, delimiter=_delimiter(path), strict=True)
            header = next(lines, [])
            _check_header(header, path)
            rows = [_cells(line, header, path, lines.line_num) for line in lines if line]
    finally:
        csv.field_size_limit(limit)
    import pyarrow as pa

    columns = {name: [row[place] or None for row in rows] for place, name in enumerate(header)}
    return pa.table({name: column(_numbers(name, values, path), _type(name)) for name, values in columns.items()})


def _delimiter(path: Path) -> str:
    """A tab in .tsv files; a semicolon where the header has one and no comma, as spreadsheets of some countries write."""
    if ".tsv" in path.suffixes:
        return "\t"
    with _opened(path) as file:
        header = file.readline()
    return ";" if ";" in header and "," not in header else ","


def _check_header(header: list[str], path: Path) -> None:
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(
            f"{path} has the column {twice[0]!r} more than once", next_step="rename one of them in its first line"
        )


def _cells(line: list[str], header: list[str], path: Path, number: int) -> list[str]:
    if len(line) != len(header):
        raise DataError(
            f"{path}, line {number}: {len(line)} cells, but the first line names {len(header)} columns",
            next_step='put cells that hold commas, quotes or line breaks into "…"',
        )
    return line


def _numbers(name: str, values: list[str | None], path: Path) -> list[Any]:
    kind = NUMBERS.get(name)
    if kind is None:
        return list(values)
    try:
        numbers = [None if value is None else float(value) for value in values]
        return [None if n is None else int(n) for n in numbers] if kind == "integer" else list(numbers)
    except (ValueError, OverflowError):
        wrong = next(value for value in values if value is not None and not _is_number(value))
        raise DataError(f"{path}: the column {name} should hold numbers, and holds {shown(wrong)}") from None


def _is_number(text: str) -> bool:
    try:
        return abs(float(text)) < float("inf")
    except ValueError:
        return False


def _type(name: str) -> pa.DataType:
    import pyarrow as pa

    return {"integer": pa.int64(), "number": pa.float64()}.get(NUMBERS.get(name, ""), pa.string())


def _json_lines(path: Path) -> pa.Table:
    with _opened(path) as file:
        return table_of_rows(list(_objects(file, path)))


def _objects(lines: io.TextIOWrapper, path: Path) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            raise DataError(f"{path}, line {number} is not JSON: {in_one_line(error, 200)}") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number} is no object", valid='lines such as {"prompt": "…", "answer": "…"}')
        yield row


def _json(path: Path) -> pa.Table:
    """A list of objects, an object that holds one such list, or an object of columns; a file of lines is taken as such."""
    with _opened(path) as file:
        text = file.read()
    try:
        found = parse_json(text)
    except ValueError as error:
        if text.lstrip().startswith("{") and "Extra data" in str(error):
            return _json_lines(path)
        raise DataError(f"{path} is not JSON: {in_one_line(error, 200)}") from None
    rows = _rows_in(found)
    if rows is None:
        raise DataError(
            f"{path} holds no rows", valid='[{"prompt": "…", "answer": "…"}, …], or such a list under one key'
        )
    return table_of_rows(rows)


def _rows_in(found: Any) -> list[Mapping[str, Any]] | None:
    if _is_rows(found):
        return list(found)
    if not isinstance(found, dict) or not found:
        return None
    lists = [value for value in found.values() if _is_rows(value) and value]
    if len(lists) == 1:
        return list(lists[0])
    columns = {name: list(value.values()) if isinstance(value, dict) else value for name, value in found.items()}
    if all(isinstance(value, list) for value in columns.values()) and len({len(v) for v in columns.values()}) == 1:
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return None


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(row, dict) for row in value)
