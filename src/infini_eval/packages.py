"""Optional packages: imported when something needs them, with the exact line that installs a missing one."""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Any

from infini_eval.errors import BackendError


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


def versions(*distributions: str) -> dict[str, str]:
    """Versions of those distributions that are installed."""
    found = {}
    for name in distributions:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # its absence is what the record says
    return found
