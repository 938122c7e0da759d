"""Where the project's shared material lies beside a checkout, for tests; they skip, saying so, where it is absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def shared_path(*parts: str) -> Path:
    """`shared/<parts>` beside the repository's root (or under $INFINI_EVAL_SHARED); skips the test where it is absent."""
    repository = Path(__file__).resolve().parents[2]
    root = Path(os.environ.get("INFINI_EVAL_SHARED", repository.parent / "shared"))
    path = root.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"shared material is not on this machine: {'/'.join(parts) or 'shared/'}")
    return path
