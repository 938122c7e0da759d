"""Finds the files of a data set (parquet, save_to_disk, hub) and reads them as one table."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from infini_eval.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

VALID_SOURCES = (
    "a parquet file, a folder with parquet files (also under data/), a save_to_disk folder, or a hub id owner/name"
)


@dataclass(frozen=True)
class DataFiles:
    """The files of one data set, in reading order; `source` names them for people."""

    files: tuple[Path, ...]
    kind: Literal["parquet", "arrow"]
    source: str
    notes: tuple[str, ...] = ()


def find_files(path_or_hub_id: str | Path) -> DataFiles:
    """Where the data lie: an existing path, a local folder of a hub id's base name (it wins), or the hub."""
    try:
        return _find(str(path_or_hub_id))
    except OSError as error:
        raise DataError(
            f"{error.filename or path_or_hub_id} cannot be read: {error.strerror}", valid=VALID_SOURCES
        ) from error


def _find(name: str) -> DataFiles:
    path = Path(name).expanduser()
    if path.exists():
        return _local(path)
    local = Path(path.name)
    if _is_hub_id(name):
        if local.is_dir():
            return _local(local, notes=(f"using the local folder ./{local} instead of the hub's {name}",))
        return _from_hub(name, local)
    raise DataError(f"no data set at {name}", valid=VALID_SOURCES)


def read_table(data: DataFiles) -> pa.Table:
    """All rows of the files as one table; files with different columns are an error."""
    import pyarrow as pa

    tables = [_read(path, data.kind) for path in data.files]
    try:
        return pa.concat_tables(tables)
    except pa.ArrowInvalid as error:
        lists = "; ".join(
            f"{path.name}: {', '.join(t.column_names)}" for path, t in zip(data.files, tables, strict=True)
        )
        raise DataError(f"the files of {data.source} differ in their columns: {lists}") from error


def fingerprint(data: DataFiles) -> str:
    """sha256 over the bytes of all files, 16 hex digits."""
    digest = hashlib.sha256()
    for path in data.files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def _read(path: Path, kind: str) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if kind == "parquet":
            return pq.ParquetFile(path).read()
        with pa.memory_map(str(path)) as source:
            return pa.ipc.open_stream(source).read_all()
    except (pa.ArrowInvalid, pa.ArrowIOError, OSError) as error:
        raise DataError(
            f"{path} cannot be read as {kind}: {str(error).splitlines()[0]}", valid=VALID_SOURCES
        ) from error


def _local(path: Path, notes: tuple[str, ...] = ()) -> DataFiles:
    if path.is_file():
        if path.suffix != ".parquet":
            raise DataError(f"{path} is not a parquet file", valid=VALID_SOURCES)
        return DataFiles((path,), "parquet", str(path), notes)
    for folder in (path, path / "data"):
        files = sorted(folder.glob("*.parquet"))
        if files:
            return DataFiles(_train_split(files), "parquet", str(path), notes)
    for folder in (path, path / "train"):
        if (folder / "state.json").is_file():
            return DataFiles(_saved_files(folder), "arrow", str(path), notes)
    held = sorted(entry.name for entry in path.iterdir())[:10]
    raise DataError(f"{path} holds no data set; it holds: {', '.join(held) or 'nothing'}", valid=VALID_SOURCES)


def _train_split(files: list[Path]) -> tuple[Path, ...]:
    """The train split where file names tell splits apart, else every file."""
    return tuple([path for path in files if path.name.startswith("train-")] or files)


def _saved_files(folder: Path) -> tuple[Path, ...]:
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        return tuple(folder / entry["filename"] for entry in state["_data_files"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder / 'state.json'} is not what save_to_disk writes: {error}") from error


def _is_hub_id(name: str) -> bool:
    parts = name.split("/")
    return len(parts) == 2 and all(parts) and not name.startswith((".", "~")) and not name.endswith(".parquet")


def _from_hub(name: str, local: Path) -> DataFiles:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        folder = Path(snapshot_download(name, repo_type="dataset", allow_patterns=["*.parquet"]))
    except (OSError, ValueError, HfHubHTTPError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"the hub data set {name} cannot be had: {reason}",
            valid=VALID_SOURCES,
            next_step=f"put its parquet files into ./{local}/ (that folder is used instead of the hub), or make data: "
            "infini-eval generate --help",
        ) from error
    found = _local(folder)
    return DataFiles(found.files, found.kind, f"hub:{name}")
