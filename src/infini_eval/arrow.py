"""Arrow columns of Python values, without pandas: `pa.array` and all that calls it import pandas wherever it is installed.

That import takes about as long as a small evaluation, and nothing of it is needed: the buffers are filled here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

EXACT_INTEGERS = 2**53  # beyond it float64 skips integers
MOST_TEXT = 2**31 - 1  # bytes that one array of strings can hold


def column(values: Sequence[Any], kind: pa.DataType | None = None) -> pa.Array | pa.ChunkedArray:
    """What `pa.array(values, kind)` makes, with its errors; kind None: the type that the values have.

    Texts, flags, integers, floats, and lists and mappings of them are made here; pyarrow converts everything else.
    """
    import pyarrow as pa

    made = _column(values, kind)
    return pa.array(values, kind) if made is None else made


def _column(values: Sequence[Any], kind: pa.DataType | None) -> pa.Array | None:
    """The column, None where pyarrow must make it: mixed types, numbers or texts out of bounds, types that are rare."""
    import pyarrow as pa

    types = {type(value) for value in values} - {type(None)}
    if not types:
        return pa.nulls(len(values), kind)
    makers: dict[str, Callable[..., pa.Array | None]] = {"list": _lists, "struct": _structs}
    if kind is None:
        name = _kind_of(types)
        if name in makers:
            return makers[name](values)
        kind = {"string": pa.string(), "bool": pa.bool_(), "int64": pa.int64(), "double": pa.float64()}.get(name)
    if kind is None:
        return None
    if (pa.types.is_string(kind) or pa.types.is_large_string(kind)) and types == {str}:
        return _texts(values, kind)
    if pa.types.is_boolean(kind) and types == {bool}:
        return pa.Array.from_buffers(kind, len(values), [_known(values), _bits(values)])
    whole = pa.types.is_int64(kind) and types == {int}
    if whole or (pa.types.is_float64(kind) and types <= {int, float}):
        return _numbers(values, kind, whole)
    return None


def _kind_of(types: set[type]) -> str:
    """The type of a column of such values, "" where they have none in common that is known here."""
    kinds = {str: "string", bool: "bool", int: "int64", float: "double", list: "list", dict: "struct"}
    if types == {int, float}:
        return "double"
    return kinds.get(next(iter(types)), "") if len(types) == 1 else ""


def _texts(values: Sequence[str | None], kind: pa.DataType) -> pa.Array | None:
    import numpy as np
    import pyarrow as pa

    try:
        parts = [b"" if value is None else value.encode() for value in values]
    except UnicodeEncodeError:  # half a character: pyarrow has an error for it
        return None
    ends = _ends(map(len, parts))
    small = pa.types.is_string(kind)
    if small and ends[-1] > MOST_TEXT:
        return None
    offsets = ends.astype(np.int32 if small else np.int64)
    buffers = [_known(values), pa.py_buffer(offsets), pa.py_buffer(b"".join(parts))]
    return pa.Array.from_buffers(kind, len(values), buffers)


def _numbers(values: Sequence[int | float | None], kind: pa.DataType, whole: bool) -> pa.Array | None:
    import numpy as np
    import pyarrow as pa

    if not whole and any(type(value) is int and abs(value) > EXACT_INTEGERS for value in values):
        return None
    try:
        data = np.array([0 if value is None else value for value in values], np.int64 if whole else np.float64)
    except OverflowError:
        return None
    return pa.Array.from_buffers(kind, len(values), [_known(values), pa.py_buffer(data)])


def _lists(values: Sequence[list[Any] | None]) -> pa.Array | None:
    import numpy as np
    import pyarrow as pa

    inner = _column([one for value in values for one in value or ()], None)
    if inner is None:
        return None
    offsets = _ends(len(value or ()) for value in values).astype(np.int32)
    buffers = [_known(values), pa.py_buffer(offsets)]
    return pa.Array.from_buffers(pa.list_(inner.type), len(values), buffers, children=[inner])


def _structs(values: Sequence[Mapping[str, Any] | None]) -> pa.Array | None:
    import pyarrow as pa

    names = list(dict.fromkeys(name for value in values for name in value or ()))
    if not names or any(type(name) is not str for name in names):
        return None
    made = [_column([None if value is None else value.get(name) for value in values], None) for name in names]
    children = [child for child in made if child is not None]
    if len(children) < len(names):
        return None
    kind = pa.struct([(name, child.type) for name, child in zip(names, children, strict=True)])
    return pa.Array.from_buffers(kind, len(values), [_known(values)], children=children)


def _ends(sizes: Any) -> np.ndarray:
    """0 and the running sums, int64."""
    import numpy as np

    return np.cumsum([0, *sizes], dtype=np.int64)


def _known(values: Sequence[Any]) -> pa.Buffer | None:
    """Which values are not null; None where all are known."""
    return _bits([value is not None for value in values]) if any(value is None for value in values) else None


def _bits(flags: Sequence[bool | None]) -> pa.Buffer:
    import numpy as np
    import pyarrow as pa

    return pa.py_buffer(np.packbits([bool(flag) for flag in flags], bitorder="little"))
