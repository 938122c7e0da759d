"""Reads a data set (parquet file or folder, save_to_disk folder, hub id), filters it and draws rows."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from infini_eval.api.task import LoadedData, Task
from infini_eval.data.passkey import answer_follows_question
from infini_eval.errors import DataError
from infini_eval.records import Sample

if TYPE_CHECKING:
    import pyarrow as pa


VALID_SOURCES = (
    "a parquet file, a folder with parquet files (also under data/), a save_to_disk folder, a folder of such folders, "
    "or a hub id owner/name"
)


@dataclass(frozen=True)
class DataFiles:
    """The files of one data set, in reading order; `source` names them for people."""

    files: tuple[Path, ...]
    kind: Literal["parquet", "arrow"]
    source: str
    notes: tuple[str, ...] = ()


def find_files(path_or_hub_id: str | Path) -> DataFiles:
    """Find where the data lie: an existing path, a local folder of a hub id's base name (it wins), or the hub."""
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
    """Read all rows of the files as one table; files with different columns are an error."""
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
    saved = sorted(state.parent for state in path.glob("*/state.json"))
    if saved:  # what generate_data.py writes: a folder for each length and depth, of one task
        files = [file for folder in saved for file in _saved_files(folder)]
        return DataFiles(tuple(files), "arrow", f"{path} ({len(saved)} folders)", notes)
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
    fetched = _local(folder)
    return DataFiles(fetched.files, fetched.kind, f"hub:{name}")


REQUIRED = ("prompt", "answer", "depth_percent")
MAX_VALUES_SHOWN = 25


def load_samples(
    path_or_hub_id: str | Path,
    *,
    num_shots: int | None = None,
    num_digits: int | None = None,
    context_length: int | None = None,
    depths: Sequence[float] | None = None,
) -> LoadedData:
    """Read and filter a data set; None (for num_digits also 0) means "do not filter".

    A filter on a column that the data do not have is skipped and noted.

    Raises:
        DataError: nothing can be read, a column is missing, no row is left, or the rows are training data (the answer
            behind the question).
    """
    files = find_files(path_or_hub_id)
    table = read_table(files)
    _require_columns(table, files.source)
    _refuse_training_data(table, files.source)
    notes = list(files.notes)
    rows = _filtered(
        table,
        files.source,
        notes,
        {
            "num_shots": None if num_shots is None else _equals(num_shots),
            "num_digits": _equals(num_digits) if num_digits else None,
            "context_length": None if context_length is None else _equals(context_length),
            "depth_percent": None if depths is None else _among(depths),
        },
    )
    return LoadedData(_samples(rows), fingerprint(files), files.source, notes)


def load_data(task: Task, path_or_hub_id: str | Path, **filters: Any) -> LoadedData:
    """Read a task's data as the task does, or as plain rows where it does not say; filters as `load_samples` has them."""
    asked = {"num_shots": None, "num_digits": None, "context_length": None, "depths": None} | filters
    return (task.load or load_samples)(path_or_hub_id, **asked)


def select_samples(samples: Sequence[Sample], num_samples: int | None, seed: int) -> tuple[list[Sample], list[str]]:
    """Draw `num_samples` of each cell (context length, depth), in the data's order, and notes on cells that hold fewer.

    A cell's draw depends on the seed and the cell alone, and a smaller draw is part of a larger one.
    """
    if num_samples is None:
        return list(samples), []
    cells: dict[tuple[int | None, float], list[int]] = defaultdict(list)
    for i, sample in enumerate(samples):
        cells[sample.context_length, sample.depth_percent].append(i)
    chosen: list[int] = []
    short: dict[int, list[str]] = defaultdict(list)  # number there -> cells
    for (length, depth), members in cells.items():
        order = list(members)
        random.Random(f"{seed}/{length}/{depth:g}").shuffle(order)
        chosen += order[:num_samples]
        if len(members) < num_samples:
            short[len(members)].append(f"depth {depth:g}%{f' of {length} tokens' if length else ''}")
    there = [f"{count} at {_shortly(places)}" for count, places in sorted(short.items())]
    notes = [f"asked for {num_samples} samples a depth, fewer are there: {'; '.join(there)}"] if short else []
    return [samples[i] for i in sorted(chosen)], notes


def read_answers(path_or_hub_id: str | Path) -> set[str]:
    """Read every answer of a data set as text, training data included."""
    files = find_files(path_or_hub_id)
    table = read_table(files)
    if "answer" not in table.column_names:
        raise DataError(f"{files.source} has no column answer; its columns: {', '.join(table.column_names)}")
    return {answer_text(value) for value in table.column("answer").to_pylist() if value is not None}


def _shortly(places: list[str], most: int = 4) -> str:
    """A few places by name, many by number."""
    return ", ".join(places) if len(places) <= most else f"each of {len(places)} depths"


def _equals(wanted: float) -> Callable[[Any], bool]:
    return lambda value: value is not None and float(value) == wanted


def _among(wanted: Sequence[float]) -> Callable[[Any], bool]:
    return lambda value: value is not None and any(abs(float(value) - depth) < 1e-6 for depth in wanted)


def _require_columns(table: pa.Table, source: str) -> None:
    missing = [name for name in REQUIRED if name not in table.column_names]
    if missing:
        raise DataError(
            f"{source} has no column {' and no column '.join(missing)}; its columns: "
            + (", ".join(table.column_names) or "none"),
            valid="columns prompt, answer, depth_percent; optional id, context_length, token_count or num_tokens, "
            "num_shots, num_digits",
        )
    if table.num_rows == 0:
        raise DataError(f"{source} holds no rows; its columns: {', '.join(table.column_names)}")


def _refuse_training_data(table: pa.Table, source: str) -> None:
    if "is_eval" in table.column_names:
        training = [value for value in table.column("is_eval").to_pylist() if value in ("no", False, 0)]
        marked = bool(training)
    else:
        prompts, answers = table.column("prompt"), table.column("answer")
        step = max(1, table.num_rows // 50)  # a look at some rows: a file is made in one mode
        rows = range(0, table.num_rows, step)
        followed = [answer_follows_question(prompts[i].as_py() or "", answer_text(answers[i].as_py())) for i in rows]
        marked = sum(followed) * 2 > len(followed)
    if marked:
        raise DataError(
            f"{source} holds training data: the question is followed by the answer, so every model would pass",
            valid="a file made with --is_eval yes",
            next_step="make one: infini-eval generate --is_eval yes … (see docs/data.md)",
        )


def _filtered(
    table: pa.Table, source: str, notes: list[str], filters: dict[str, Callable[[Any], bool] | None]
) -> pa.Table:
    for name, keep in filters.items():
        if keep is None:
            continue
        if name not in table.column_names:
            notes.append(f"{source} has no column {name}: not filtered by it")
            continue
        values = table.column(name).to_pylist()
        kept = [keep(value) for value in values]
        if not any(kept):
            raise DataError(
                f"no row of {source} is left after the filter on {name}",
                valid=f"{name}: {_values_shown(values)}",
                next_step=f"choose one of these values; columns: {', '.join(table.column_names)}",
            )
        table = table if all(kept) else table.filter(kept)
    return table


def _values_shown(values: list[Any]) -> str:
    counted = sorted(Counter(values).items(), key=lambda item: (item[0] is None, item[0]))
    shown = [f"{value:g} ({n} rows)" if isinstance(value, float) else f"{value} ({n} rows)" for value, n in counted]
    return ", ".join(shown[:MAX_VALUES_SHOWN]) + (f", … {len(shown)} values" if len(shown) > MAX_VALUES_SHOWN else "")


def _samples(table: pa.Table) -> list[Sample]:
    names = [name for name in table.column_names if name != "prompt"]
    columns = {name: table.column(name).to_pylist() for name in names}
    prompts = table.column("prompt").to_pylist()
    seen: Counter[tuple[Any, ...]] = Counter()
    samples = []
    for i, prompt in enumerate(prompts):
        row = {name: columns[name][i] for name in names}
        sample = _sample(row, prompt, i)
        content = (sample.id, prompt, sample.answer, sample.depth_percent, sample.context_length)
        if seen[content]:
            sample = _sample(row, prompt, i, occurrence=seen[content])
        seen[content] += 1
        samples.append(sample)
    return samples


def _sample(row: dict[str, Any], prompt: Any, index: int, occurrence: int = 0) -> Sample:
    identity = str(row["id"]) if row.get("id") is not None else str(index)
    depth = row["depth_percent"]
    if not isinstance(prompt, str) or row["answer"] is None or depth is None:
        raise DataError(f"row {index} (id {identity}) has an empty prompt, answer or depth_percent")
    return Sample(
        id=identity,
        prompt=prompt,
        answer=answer_text(row["answer"]),
        depth_percent=float(depth),
        context_length=_whole(row.get("context_length")),
        num_shots=_whole(row.get("num_shots")),
        num_digits=_whole(row.get("num_digits")),
        columns=row,
        occurrence=occurrence,
    )


def answer_text(value: Any) -> str:
    """An answer as text: 1234, 1234.0 and "1234" alike."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)
