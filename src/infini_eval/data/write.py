"""Writes generated rows: parquet (bounded memory, the same bytes for the same rows) or a save_to_disk folder."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from infini_eval.arrow import column
from infini_eval.data.config import ResolvedConfig
from infini_eval.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

PARQUET_NAME = "train-00000-of-00001.parquet"
GROUP_CHARS = 64 * 1024**2  # prompts a row group holds; prompts of one group are compressed together
COMPRESSION_LEVEL = 9
METADATA_KEY = "infini_eval"  # of the parquet file: the settings that made it, as JSON


def write_rows(
    rows: Iterator[dict[str, Any]],
    config: ResolvedConfig,
    target: Path,
    format: Literal["parquet", "hf"],
    settings: Mapping[str, Any],
) -> tuple[int, list[Path]]:
    """Write all rows into one parquet file, or ("hf") a save_to_disk folder for each length and depth.

    Returns:
        How many rows, and the files or folders that hold them.

    Raises:
        DataError: they cannot be written there.
    """
    try:
        if format == "parquet":
            file = target if target.suffix == ".parquet" else target / PARQUET_NAME
            return write_parquet(rows, file, settings), [file]
        return _write_folders(rows, config, target)
    except OSError as error:
        raise _unwritable(error.filename or target, error.strerror or str(error)) from error


def _write_folders(rows: Iterator[dict[str, Any]], config: ResolvedConfig, target: Path) -> tuple[int, list[Path]]:
    count, places = 0, []
    kind = "eval" if config.is_eval else "finetune"
    for (length, depth), cell in itertools.groupby(rows, key=lambda row: (row["context_length"], row["depth_percent"])):
        name = f"needle_{kind}_data_and_{length}_ctx_and_depth_{depth}"
        places.append(target / f"{name}_and_id_{config.id or 1}_and_num_shots_{config.num_shots}")
        count += write_saved_dataset(cell, places[-1])
    return count, places


def check_place(target: Path) -> None:
    """Raise a DataError before the work where nothing could be written."""
    try:
        near = next(place for place in (target, *target.absolute().parents) if place.exists())
    except OSError as error:
        raise _unwritable(target, error.strerror or str(error)) from error
    if near.is_file() and not (near == target and target.suffix == ".parquet"):
        raise _unwritable(target, f"{near} is a file")
    if not os.access(near, os.W_OK):
        raise _unwritable(target, f"no right to write into {near}")


def _unwritable(place: str | Path, reason: str) -> DataError:
    return DataError(f"--save_path {place} cannot be written: {reason}", valid="a folder that is yours, or a new one")


def push_to_hub(hub_id: str, places: Sequence[Path]) -> None:
    """Upload files and folders to a data set of the hub; DataError where that fails."""
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        api.create_repo(hub_id, repo_type="dataset", exist_ok=True)
        for place in places:
            if place.is_dir():
                api.upload_folder(repo_id=hub_id, repo_type="dataset", folder_path=place, path_in_repo=place.name)
            else:
                api.upload_file(
                    repo_id=hub_id, repo_type="dataset", path_or_fileobj=place, path_in_repo=f"data/{place.name}"
                )
    except (OSError, ValueError) as error:  # the hub's HTTP errors are OSErrors
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"upload to {hub_id} failed: {reason}", next_step="the data are on disk; try again") from error


def write_parquet(rows: Iterable[Mapping[str, Any]], file: Path, settings: Mapping[str, Any]) -> int:
    """Write rows as they come and return how many; an unfinished file never bears the final name."""
    import pyarrow.parquet as pq

    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}.unfinished")
    writer: pq.ParquetWriter | None = None
    count = 0
    try:
        for group in _groups(rows):
            table = as_table(group)
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
        writer.add_key_value_metadata({METADATA_KEY: json.dumps(settings, sort_keys=True)})
        writer.close()
    unfinished.replace(file)
    return count


def write_saved_dataset(rows: Iterable[Mapping[str, Any]], folder: Path) -> int:
    """Write a folder that `datasets.load_from_disk` reads; its fingerprint is the rows' own, so it is repeatable."""
    from datasets import Dataset, disable_progress_bars, enable_progress_bars

    table = as_table(list(rows))
    digest = hashlib.sha256(json.dumps(table.to_pylist()).encode()).hexdigest()[:16]
    disable_progress_bars()
    try:
        Dataset(table, fingerprint=digest).save_to_disk(str(folder))
    finally:
        enable_progress_bars()
    return int(table.num_rows)


def as_table(rows: list[Mapping[str, Any]]) -> pa.Table:
    """Rows as a table: int64, float64 and text columns in the rows' own order."""
    import pyarrow as pa

    kinds = {int: pa.int64(), float: pa.float64(), str: pa.string()}
    large = _is_large(rows)
    fields = []
    for name, value in rows[0].items():
        kind = float if any(isinstance(row[name], float) for row in rows) else type(value)
        fields.append(pa.field(name, pa.large_string() if name == "prompt" and large else kinds[kind]))
    columns = [column([row.get(field.name) for row in rows], field.type) for field in fields]
    return pa.table(columns, schema=pa.schema(fields))


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
        "store_schema": False,  # else short and long prompts would be columns of different types
    }
