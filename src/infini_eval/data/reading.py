"""Reads a data set (a file or folder of rows, a save_to_disk folder, a hub id), filters it and draws rows."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infini_eval.api.task import LoadedData, Task
from infini_eval.arrow import column
from infini_eval.data.columns import MESSAGES, answer_text, mapped, with_depths
from infini_eval.data.passkey import answer_follows_question
from infini_eval.data.tables import KINDS, PACKED, SUFFIXES, Kind, kind_of, read_text_table
from infini_eval.errors import ConfigError, DataError, first_line, in_one_line
from infini_eval.foreign import MOST_SHOWN, as_number, as_whole, parse_json, read_json_object, shown
from infini_eval.options import MOST_COUNTED, MOST_TOKENS
from infini_eval.records import Sample
from infini_eval.results.manifest import MANIFEST

if TYPE_CHECKING:
    import pyarrow as pa


VALID_SOURCES = (
    f"a file of rows ({SUFFIXES}), a folder of such files (also under data/), a save_to_disk folder, or a hub id owner/name "
    "(owner/name:CONFIGURATION)"
)
SPLITS = ("train", "validation", "valid", "dev", "test")
# Columns that say where a sample belongs, with their largest values.
PLACING = {
    "depth_percent": (100, "a number"),
    "context_length": (MOST_TOKENS, "a whole number"),
    "num_shots": (MOST_COUNTED, "a whole number"),
    "num_digits": (MOST_COUNTED, "a whole number"),
}
LISTS = ("outputs", "needles")  # columns of several texts
RESULTS = ("sample_key", "generation_text")  # columns of our records, which no data have


@dataclass(frozen=True)
class DataFiles:
    """The files of one data set, in reading order; `source` names them for people."""

    files: tuple[Path, ...]
    kind: Kind
    source: str
    notes: tuple[str, ...] = ()


def find_files(path_or_hub_id: str | Path, split: str | None = None) -> DataFiles:
    """Find where the data lie: an existing path, a local folder of a hub id's base name (it wins), or the hub.

    Args:
        split: of data whose files or folders tell splits apart, the one to take; train, or else all files, where None.
    """
    try:
        return _find(str(path_or_hub_id), split)
    except OSError as error:
        raise DataError(
            f"{error.filename or path_or_hub_id} cannot be read: {error.strerror}", valid=VALID_SOURCES
        ) from error


def _find(name: str, split: str | None) -> DataFiles:
    path = Path(name).expanduser()
    if path.exists():
        return _local(path, split)
    hub, _, configuration = name.partition(":")
    if _is_hub_id(hub):
        local = Path(Path(hub).name)
        if local.is_dir():
            note = f"using the local folder ./{local} instead of the hub's {hub}"
            return _local(local / configuration, split, (note,))
        return _from_hub(hub, configuration, split, local)
    raise DataError(f"no data set at {name}", valid=VALID_SOURCES)


def read_table(data: DataFiles) -> pa.Table:
    """Read all rows of the files as one table; files with different columns are an error."""
    import pyarrow as pa

    tables = [_read(path, data.kind) for path in data.files]
    for path, table in zip(data.files, tables, strict=True):
        twice = [name for name, times in Counter(table.column_names).items() if times > 1]
        if twice:
            raise DataError(f"{path} has the column {shown(twice[0])} more than once", next_step="rename one of them")
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
        if kind not in ("parquet", "arrow"):
            return read_text_table(path, kind)
        if kind == "parquet":
            table = pq.ParquetFile(path).read()
        else:
            with pa.memory_map(str(path)) as source:
                table = pa.ipc.open_stream(source).read_all()
        table.validate(full=True)  # text that is not UTF-8 is refused here, not in the middle of a run
        return table
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as {kind}: {first_line(error)}", valid=VALID_SOURCES) from error


def _local(path: Path, split: str | None = None, notes: tuple[str, ...] = ()) -> DataFiles:
    if path.is_file():
        kind = kind_of(path)
        if kind is None:
            raise DataError(f"{path} is not a file of rows", valid=VALID_SOURCES)
        return DataFiles((path,), kind, str(path), notes)
    if not path.is_dir():
        held = sorted(entry.name for entry in path.parent.iterdir() if entry.is_dir())
        raise DataError(f"{path.parent} has no configuration {path.name!r}", valid=", ".join(held) or "none")
    folders = (path, path / "data", path / (split or SPLITS[0]))
    for folder in folders:
        if files := sorted(folder.glob("*.parquet")):
            return _of_split(files, split, path, notes)
    for folder in folders:
        if (folder / "state.json").is_file():
            return DataFiles(_saved_files(folder), "arrow", str(path), notes)
    saved = sorted(state.parent for state in path.glob("*/state.json"))
    if saved and not (path / "dataset_dict.json").is_file():  # of generate_data.py: a folder for each length and depth
        found = [file for folder in saved for file in _saved_files(folder)]
        return DataFiles(tuple(found), "arrow", f"{path} ({len(saved)} folders)", notes)
    if (path / MANIFEST).is_file():
        raise _results_of_a_run(path, path)
    for folder in folders:
        if folder.is_dir() and (files := sorted(file for file in folder.iterdir() if kind_of(file))):
            return _of_split(files, split, path, notes)
    raise _nothing_in(path)


def _of_split(files: list[Path], split: str | None, source: Path, notes: tuple[str, ...]) -> DataFiles:
    """The files of one split where their names tell splits apart, else all of them; they must be of one kind."""
    splits = {file: found[1] for file in files if (found := re.match(rf"({'|'.join(SPLITS)})(?=[-_.])", file.name))}
    if split is not None:
        chosen = [f for f in files if f.parent.name == split or re.match(rf"{re.escape(split)}(?=[-_.])", f.name)]
        if not chosen:
            valid = ", ".join(dict.fromkeys(splits.values())) or "none: leave --split out"
            raise DataError(f"{source} has no split {split!r}", valid=valid)
    else:
        chosen = [file for file in files if splits.get(file) == SPLITS[0]] or files
        if len(several := dict.fromkeys(splits[file] for file in chosen if file in splits)) > 1:
            notes = (*notes, f"the splits {', '.join(several)} are read together; --split NAME takes one")
    kinds = list(dict.fromkeys(kind_of(file) for file in chosen))
    if len(kinds) > 1 or kinds[0] is None:
        raise DataError(
            f"{source} holds files of several kinds: {', '.join(file.name for file in chosen[:10])}",
            next_step="give one of them",
        )
    return DataFiles(tuple(chosen), kinds[0], str(source), notes)


def _nothing_in(path: Path) -> DataError:
    held = sorted(entry.name for entry in path.iterdir())[:10]
    saved = [name for name in held if (path / name / "state.json").is_file()]
    return DataError(
        f"{path} holds no data set; it holds: {', '.join(held) or 'nothing'}",
        valid=VALID_SOURCES,
        next_step=f"take one of its splits: --split {saved[0]}" if saved else None,
    )


def _results_of_a_run(path: Path | str, run: Path | None = None) -> DataError:
    return DataError(
        f"{path} holds the results of a run, not data",
        valid="the data that the run was made on, or others",
        next_step=f"report on it: infini-eval analyze {run or 'FOLDER'}",
    )


def _saved_files(folder: Path) -> tuple[Path, ...]:
    state = read_json_object(folder / "state.json", DataError)
    try:
        return tuple(folder / entry["filename"] for entry in state["_data_files"])
    except (KeyError, TypeError) as error:
        raise DataError(f"{folder / 'state.json'} is not what save_to_disk writes: {in_one_line(error)}") from error


def _is_hub_id(name: str) -> bool:
    parts = name.split("/")
    named = len(parts) == 2 and all(parts) and not name.startswith((".", "~"))
    return named and kind_of(Path(name)) is None


def _from_hub(name: str, configuration: str, split: str | None, local: Path) -> DataFiles:
    """Its parquet files, or those of text where it has none."""
    for patterns in (["*.parquet"], [f"*{suffix}{packed}" for suffix in KINDS for packed in ("", *PACKED)]):
        folder = _fetched(name, patterns, local) / configuration
        try:
            found = _local(folder, split)
            break
        except DataError:
            if patterns != ["*.parquet"]:
                raise
    return DataFiles(found.files, found.kind, f"hub:{name}{configuration and ':'}{configuration}", found.notes)


def _fetched(name: str, patterns: list[str], local: Path) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(name, repo_type="dataset", allow_patterns=patterns))
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise DataError(
            f"the hub data set {name} cannot be had: {first_line(error)}",
            valid=VALID_SOURCES,
            next_step=f"put its files into ./{local}/ (that folder is used instead of the hub), or make data: "
            "infini-eval generate --help",
        ) from error


MAX_VALUES_SHOWN = 25


def load_samples(
    path_or_hub_id: str | Path,
    *,
    num_shots: int | None = None,
    num_digits: int | None = None,
    context_length: int | None = None,
    depths: Sequence[float] | None = None,
    columns: Mapping[str, str] | None = None,
    split: str | None = None,
) -> LoadedData:
    """Read and filter a data set; None (for num_digits also 0) means "do not filter".

    A filter on a column that the data do not have is skipped and noted.

    Args:
        columns: our columns to the data's own (data/columns.py); what it does not name is guessed where it has to be.
        split: the split to take, of data that tell splits apart.

    Raises:
        DataError: nothing can be read, a column is missing, no row is left, the rows are training data (the answer
            behind the question) or a run's results.
    """
    files = find_files(path_or_hub_id, split)
    table = read_table(files)
    if set(RESULTS) <= set(table.column_names):
        raise _results_of_a_run(files.source)
    if table.num_rows == 0:
        raise DataError(f"{files.source} holds no rows; its columns: {', '.join(table.column_names) or 'none'}")
    made = mapped(table, files.source, columns or {})
    table, notes = made.table, [*files.notes, *made.notes]
    settings: dict[str, Any] = {"columns": dict(made.used)} if made.used else {}
    settings |= {"split": split} if split else {}
    _refuse_training_data(table, files.source)
    if "depth_percent" not in table.column_names:
        table, settings["depths"], said = with_depths(table, files.source)
        notes.append(said)
    rows = _filtered(
        _with_numbers(table, files.source),
        files.source,
        notes,
        {
            "num_shots": None if num_shots is None else _equals(num_shots),
            "num_digits": _equals(num_digits) if num_digits else None,
            "context_length": None if context_length is None else _equals(context_length),
            "depth_percent": None if depths is None else _among(depths),
        },
    )
    return LoadedData(_samples(rows), fingerprint(files), files.source, notes, settings)


def load_data(
    task: Task,
    path_or_hub_id: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    split: str | None = None,
    **filters: Any,
) -> LoadedData:
    """Read a task's data as the task does, or as plain rows where it does not say; the rest as `load_samples` has it.

    Raises:
        ConfigError: columns or a split are named for a task that reads data of its own kind.
    """
    asked = {"num_shots": None, "num_digits": None, "context_length": None, "depths": None} | filters
    if task.load is None:
        return load_samples(path_or_hub_id, **asked, columns=columns, split=split)
    if columns or split:
        flag = "--columns" if columns else "--split"
        raise ConfigError(f"{flag}: the task {task.name} reads data of its own kind", next_step=f"leave {flag} out")
    return task.load(path_or_hub_id, **asked)


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


def _with_numbers(table: pa.Table, source: str) -> pa.Table:
    """The table with numbers in the columns that say where a sample belongs; texts of numbers are read as such.

    Raises:
        DataError: such a column holds something else.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    for place, name in enumerate(table.column_names):
        kind = table.schema.field(place).type
        if name not in PLACING or pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind):
            continue
        try:
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_decimal(kind)):
                raise pa.ArrowInvalid(f"its type is {kind}")
            table = table.set_column(place, name, pc.cast(table.column(place), pa.float64()))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise DataError(
                f"{source}: the column {name} should hold numbers: {in_one_line(first_line(error), 200)}",
                next_step="mend the column, or take another: --columns OURS=THEIRS",
            ) from None
    return table


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
        table = table if all(kept) else table.filter(column(kept))
    return table


def _values_shown(values: list[Any]) -> str:
    counted = sorted(Counter(values).items(), key=lambda item: (item[0] is None, item[0]))
    shown = [f"{value:g} ({n} rows)" if isinstance(value, float) else f"{value} ({n} rows)" for value, n in counted]
    return ", ".join(shown[:MAX_VALUES_SHOWN]) + (f", … {len(shown)} values" if len(shown) > MAX_VALUES_SHOWN else "")


def _samples(table: pa.Table) -> list[Sample]:
    names = [name for name in table.column_names if name not in ("prompt", MESSAGES)]
    columns = {name: table.column(name).to_pylist() for name in names}
    chats = table.column(MESSAGES).to_pylist() if MESSAGES in table.column_names else [None] * table.num_rows
    prompts = table.column("prompt").to_pylist()
    seen: Counter[tuple[Any, ...]] = Counter()
    samples = []
    for i, prompt in enumerate(prompts):
        row = {name: columns[name][i] for name in names}
        sample = _sample(row, prompt, i, chat=chats[i])
        content = (sample.id, prompt, sample.answer, sample.depth_percent, sample.context_length)
        if seen[content]:
            sample = replace(sample, occurrence=seen[content])
        seen[content] += 1
        samples.append(sample)
    return samples


def _sample(row: dict[str, Any], prompt: Any, index: int, chat: str | None = None) -> Sample:
    identity = str(row["id"]) if row.get("id") is not None else str(index)
    depth = row["depth_percent"]
    if not prompt or row["answer"] is None or depth is None:
        raise DataError(f"row {index} (id {identity[:MOST_SHOWN]}) has an empty prompt, answer or depth_percent")
    for name in LISTS:
        _check_list(row.get(name), name, index)
    placed = {name: _placed(row.get(name), name, index) for name in PLACING}
    return Sample(
        id=identity,
        prompt=prompt,
        answer=answer_text(row["answer"]),
        depth_percent=placed["depth_percent"],
        context_length=placed["context_length"],
        num_shots=placed["num_shots"],
        num_digits=placed["num_digits"],
        columns=row,
        turns=() if chat is None else tuple((role, text) for role, text in json.loads(chat)),
    )


def _check_list(value: Any, name: str, index: int) -> None:
    """Refuse what is no list of texts, nor the JSON of one: scorers read it in the middle of a run."""
    found = value
    if isinstance(value, str) and (name == "needles" or value.startswith("[")):
        try:
            found = parse_json(value)
        except ValueError:
            found = {}
    whole = isinstance(found, str | None) or (
        isinstance(found, list) and all(isinstance(one, str | int | float | None) for one in found)
    )
    if not whole or (name == "needles" and isinstance(found, str)):
        raise DataError(f"row {index}: {name} is {shown(value)}", valid="a list of texts, or JSON of one")


def _placed(value: Any, name: str, index: int) -> Any:
    """A number that says where a sample belongs, within its bounds; DataError for any other."""
    if value is None:
        return None
    most, what = PLACING[name]
    found = as_number(value, 0, most) if name == "depth_percent" else as_whole(value, 0, most)
    if found is None:
        raise DataError(f"row {index}: {name} is {shown(value)}", valid=f"{what} from 0 to {most:,}")
    return found
