"""Optional packages: imported when something needs them, with the exact line that installs a missing one."""

from __future__ import annotations

import importlib
import importlib.metadata
import traceback
from typing import Any

from infini_eval.errors import BackendError, in_one_line


def require(module: str, *, extra: str, purpose: str, note: str | None = None) -> Any:
    """The imported module; a BackendError with the pip line where it is not installed."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not (module == error.name or module.startswith(f"{error.name}.")):
            raise  # it is installed; something that it needs is not
        raise BackendError(
            f"{purpose} needs the package {module.partition('.')[0]!r}, which is not installed",
            valid=note,
            next_step=f"pip install 'infini-eval[{extra}]'",
        ) from None


def broken_import(error: BaseException) -> BackendError | None:
    """What to say where an error is of importing an installed package (one that was built for another torch, say).

    Libraries import their parts late and wrap what goes wrong, so that it seems to be about what they were asked for.
    """
    cause: BaseException | None = error
    while cause is not None:
        frames = traceback.extract_tb(cause.__traceback__)
        importing = any(frame.filename.startswith("<frozen importlib") for frame in frames)
        if importing or isinstance(cause, ImportError) or "Failed to import" in str(cause):
            return BackendError(
                f"an import fails: {type(cause).__name__}: {in_one_line(cause, 400)}",
                next_step="install, mend or remove the package that the message names; infini-eval doctor lists what is there",
            )
        cause = cause.__cause__ or cause.__context__
    return None


def versions(*distributions: str) -> dict[str, str]:
    """Versions of those distributions that are installed."""
    found = {}
    for name in distributions:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # its absence is what the record says
    return found
