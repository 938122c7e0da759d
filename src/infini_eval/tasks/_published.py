"""Data sets in the layout that their authors published, read as samples; rows made here are read as all others are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infini_eval.api.task import LoadedData
from infini_eval.data.reading import find_files, fingerprint, load_samples, read_table
from infini_eval.errors import DataError
from infini_eval.records import Sample

OURS = ("prompt", "depth_percent", "token_count")  # columns of every row that `generate` makes
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Layout:
    """Published rows: the columns that they must have, and the sample of one (ValueError says what is wrong with it).

    `source` tells where the data are had. `note` is said of every data set that is read so.
    """

    columns: Sequence[str]
    sample: Callable[[Row, int], Sample]
    source: str
    note: str | None = None


def load(path: str, layout: Layout, filters: Mapping[str, Any]) -> LoadedData:
    """The samples of a file, folder or hub id: rows made here, or those of the published layout.

    Filters mean something for rows made here alone; elsewhere they are noted.

    Raises:
        DataError: nothing can be read, or a row is not as the layout has it.
    """
    files = find_files(path)
    table = read_table(files)
    if set(OURS) <= set(table.column_names):
        return load_samples(path, **filters)
    missing = [name for name in layout.columns if name not in table.column_names]
    if missing or not table.num_rows:
        what = f"no column {', '.join(missing)}" if missing else "no rows"
        raise DataError(
            f"{files.source} has {what}; its columns: {', '.join(table.column_names) or 'none'}",
            valid=f"rows that infini-eval generate made, or the published columns {', '.join(layout.columns)}",
            next_step=layout.source,
        )
    notes = [*files.notes, *([layout.note] if layout.note else [])]
    notes += [f"{files.source} has no {name}: not filtered by it" for name, value in filters.items() if value]
    samples = [_sample(row, number, layout, files.source) for number, row in enumerate(table.to_pylist())]
    return LoadedData(samples, fingerprint(files), files.source, notes)


def _sample(row: Row, number: int, layout: Layout, source: str) -> Sample:
    empty = [name for name in layout.columns if row[name] is None]
    if empty:
        raise DataError(f"{source}, row {number}: nothing in the column {empty[0]}")
    try:
        return layout.sample(row, number)
    except ValueError as error:
        raise DataError(f"{source}, row {number}: {error}", next_step=layout.source) from None


def text_of(row: Row, name: str) -> str:
    """A column that must hold text; ValueError for anything else."""
    value = row[name]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"the column {name} holds no text but {type(value).__name__}")
    return value
