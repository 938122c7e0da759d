"""Reading jsonl files of records: fast where every line is alike, line by line where not; a torn line is left out."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from infini_eval.results.record_columns import FLAGS, TEXTS

if TYPE_CHECKING:
    import pyarrow as pa

_BLOCK_BYTES = 8 * 1024**2  # longer lines than this (a 10 MB answer) are read by the slow path
_PIECE_BYTES = 64 * 1024**2


def read_jsonl(path: Path, wanted: list[str]) -> tuple[pa.Table, list[str]]:
    """The wanted columns that the file has, with types as found, and notes on torn or broken lines."""
    import pyarrow as pa
    import pyarrow.json as pj

    with path.open("rb") as file:
        first = _parsed(file.readline(_BLOCK_BYTES))
        whole, tail = _split_torn_tail(file)
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


def _split_torn_tail(file: BinaryIO) -> tuple[int, bytes]:
    """How many bytes hold whole lines, and what follows the last line's end."""
    end = file.seek(0, io.SEEK_END)
    start, tail = end, b""
    while start > 0:
        step = min(1024**2, start)
        start -= step
        file.seek(start)
        tail = file.read(step) + tail
        found = tail.rfind(b"\n")
        if found >= 0:
            return start + found + 1, tail[found + 1 :].strip()
    return 0, tail.strip()


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
        if name in TEXTS or isinstance(value, str):
            return pa.string()
        return pa.bool_() if name in FLAGS else pa.float64()

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
    return pa.table({name: pa.array([_plain(record.get(name), name) for record in records]) for name in seen})


def _plain(value: Any, name: str) -> Any:
    """One JSON value as this column's type; what cannot be one is null."""
    if value is None:
        return None
    if name in TEXTS:
        text = value if isinstance(value, str) else json.dumps(value)
        return text.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate cannot be stored or printed
    if name in FLAGS:
        return bool(value)
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
