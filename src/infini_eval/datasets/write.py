"""Writes generated rows: parquet (bounded memory, the same bytes for the same rows) or a save_to_disk folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

PARQUET_NAME = "train-00000-of-00001.parquet"
GROUP_CHARS = 64 * 1024**2  # prompts a row group holds; prompts of one group are compressed together
COMPRESSION_LEVEL = 9
METADATA_KEY = b"infini_eval"


def write_parquet(rows: Iterable[Mapping[str, Any]], file: Path, settings: Mapping[str, Any]) -> int:
    """Write rows as they come and return how many; an unfinished file never bears the final name."""
    import pyarrow.parquet as pq

    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}.unfinished")
    writer: pq.ParquetWriter | None = None
    count = 0
    try:
        for group in _groups(rows):
            table = as_table(group, settings)
            if writer is None:
                writer = pq.ParquetWriter(unfinished, table.schema, **_options())
            writer.write_table(table.cast(writer.schema))
            count += len(group)
    except BaseException:
        if writer is not None:
            writer.close()
        unfinished.unlink(missing_ok=True)
        raise
    if writer is not None:
        writer.close()
    unfinished.replace(file)
    return count


def write_saved_dataset(rows: Iterable[Mapping[str, Any]], folder: Path, settings: Mapping[str, Any]) -> int:
    """Write a folder that `datasets.load_from_disk` reads; its fingerprint is the rows' own, so it is repeatable."""
    from datasets import Dataset, disable_progress_bars, enable_progress_bars

    table = as_table(list(rows), settings).replace_schema_metadata(None)
    digest = hashlib.sha256(json.dumps(table.to_pylist()).encode()).hexdigest()[:16]
    disable_progress_bars()
    try:
        Dataset(table, fingerprint=digest).save_to_disk(str(folder))
    finally:
        enable_progress_bars()
    return table.num_rows


def as_table(rows: list[Mapping[str, Any]], settings: Mapping[str, Any]) -> pa.Table:
    """Rows as a table: int64, float64 and text columns in the rows' own order, the settings as metadata."""
    import pyarrow as pa

    kinds = {int: pa.int64(), float: pa.float64(), str: pa.string()}
    large = _is_large(rows)
    fields = []
    for name, value in rows[0].items():
        kind = float if any(isinstance(row[name], float) for row in rows) else type(value)
        fields.append(pa.field(name, pa.large_string() if name == "prompt" and large else kinds[kind]))
    metadata = {METADATA_KEY: json.dumps(settings, sort_keys=True).encode()}
    return pa.Table.from_pylist([dict(row) for row in rows], schema=pa.schema(fields, metadata=metadata))


def _is_large(rows: list[Mapping[str, Any]]) -> bool:
    return sum(len(row["prompt"]) for row in rows) > GROUP_CHARS


def _groups(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    group: list[Mapping[str, Any]] = []
    chars = 0
    for row in rows:
        if group and chars + len(row["prompt"]) > GROUP_CHARS:
            yield group
            group, chars = [], 0
        group.append(row)
        chars += len(row["prompt"])
    if group:
        yield group


def _options() -> dict[str, Any]:
    """One page a column chunk, so that text shared by prompts is stored about once; no statistics of prompts."""
    return {
        "compression": "zstd",
        "compression_level": COMPRESSION_LEVEL,
        "use_dictionary": False,
        "write_statistics": False,
        "data_page_size": GROUP_CHARS,
        "store_schema": False,
    }
