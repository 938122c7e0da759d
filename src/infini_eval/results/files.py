"""Writing to a run folder: whole files atomically, and the system's refusals as one clear error."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from infini_eval.errors import RunFolderError
from infini_eval.foreign import valid_text
from infini_eval.keys import hide_keys

SAMPLES = "samples"
TEMPORARY = ".tmp"
BLOCK_BYTES = 1 << 16
REMEDIES = {
    errno.ENOSPC: "free some space and run the same command again: what was finished is kept",
    errno.EDQUOT: "raise the quota or free some space and run the same command again: what was finished is kept",
    errno.EACCES: "change the permissions or choose another folder with --save_path",
    errno.EPERM: "change the permissions or choose another folder with --save_path",
    errno.EROFS: "the file system is mounted read-only: choose another folder with --save_path",
    errno.ENOTDIR: "a part of the path is a file: choose another folder with --save_path",
    errno.EEXIST: "a file has this name: choose another folder with --save_path",
    errno.EISDIR: "this is a folder: name a file",
}


def os_error(path: Path, error: OSError, doing: str = "write") -> RunFolderError:
    """The system's refusal as an error that names the path, the reason and the way out."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    remedy = REMEDIES.get(error.errno or 0, "mend this and run the same command again: what was finished is kept")
    return RunFolderError(f"cannot {doing} {str(path)!r}: {reason}", next_step=remedy)


def make_folder(path: Path) -> None:
    """Make a folder and its parents; RunFolderError where the system refuses."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise os_error(path, error, "make the folder") from error


def write_atomically(path: Path, content: bytes | Iterable[bytes]) -> None:
    """Replace a file in one step: a reader, or a process killed half-way, sees the old or the new one.

    content: all of it, or its parts one after the other where it is large.
    """
    with replacing(path) as file:
        file.writelines([content] if isinstance(content, bytes) else content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """The same for who writes to a file: it takes its place when the block ends without an error."""
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{TEMPORARY}")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise os_error(path, error) from error
        raise


def remove_temporaries(folder: Path) -> None:
    """Remove what writes of killed processes left behind; only for who holds the folder's lock."""
    for path in folder.glob(f".*{TEMPORARY}"):
        path.unlink(missing_ok=True)


def size_of_whole_lines(file: BinaryIO) -> int:
    """Bytes up to the last newline, which included; what follows it is torn, or lacks only its end."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - BLOCK_BYTES)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write readable JSON atomically, without keys; values that JSON lacks are written as `to_jsonable` does."""
    write_atomically(path, (hide_keys(json.dumps(to_jsonable(data), indent=2, allow_nan=False)) + "\n").encode())


def to_jsonable(value: Any) -> Any:
    """The value as JSON has it: tuples are lists, NaN and infinity null, texts valid Unicode, dates ISO texts, numpy plain."""
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, str):
        return valid_text(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, Mapping):
        return {valid_text(str(key)): to_jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_jsonable(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((to_jsonable(item) for item in value), key=str)
    if hasattr(value, "tolist"):  # numpy scalars and arrays, without importing numpy
        return to_jsonable(value.tolist())
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return str(value)
