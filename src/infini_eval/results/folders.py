"""Finding run folders, and saying what to do where there are none."""

from __future__ import annotations

import os
import re
from pathlib import Path

from infini_eval.errors import DataError, RunFolderError
from infini_eval.results.record_files import SUFFIXES

MANIFEST = "manifest.json"
SAMPLES = "samples"
MERGED = "samples.parquet"
HOW_TO_EVALUATE = "run_passkey_eval.py --ckpt-path CKPT --save_path DIR --eval_dataset_path DATA"
_MAX_DEPTH = 6
_OWN_PLOTS = "plots"


def is_run_folder(folder: Path) -> bool:
    """Whether an evaluation of ours wrote here."""
    return (folder / MANIFEST).is_file() or (folder / MERGED).is_file() or any((folder / SAMPLES).glob("*.jsonl"))


def find_runs(folder: Path) -> list[Path]:
    """The run folders at or below `folder`, in natural order; a folder of foreign record files counts as a run.

    RunFolderError where the folder does not exist, DataError where it holds nothing to report on.
    """
    if not folder.exists():
        raise RunFolderError(f"no such folder: {folder}", next_step="give the folder that --save_path named")
    if not folder.is_dir():
        raise RunFolderError(f"{folder} is a file", valid="a run folder, or a folder of run folders")
    runs = [found for found in _walk(folder) if is_run_folder(found) or record_files(found)]
    if not runs:
        raise nothing_found(folder)
    return sorted(runs, key=natural_key)


def natural_key(path: Path) -> list[tuple[int, int, str]]:
    """Sorts run_2 before run_10."""
    parts = re.split(r"(\d+)", str(path))
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def _walk(folder: Path) -> list[Path]:
    """`folder` and what lies below it, without descending into a run of ours or into hidden folders."""
    found = []
    base = len(folder.parts)
    for at, children, _ in os.walk(folder):
        path = Path(at)
        found.append(path)
        if is_run_folder(path) or len(path.parts) - base >= _MAX_DEPTH:
            children.clear()
        children[:] = [child for child in children if not child.startswith(".") and child != _OWN_PLOTS]
    return found


def record_files(folder: Path) -> list[Path]:
    """The files right in `folder` that may hold records, in natural order."""
    return sorted((p for p in folder.iterdir() if p.suffix in SUFFIXES and p.is_file()), key=natural_key)


def nothing_found(folder: Path) -> DataError:
    """The error for a folder without results: empty, other files, or an older tool's pickles (which are never read)."""
    files = sorted(path.name for path in folder.rglob("*") if path.is_file())
    pickles = [name for name in files if name.endswith((".pkl", ".pickle"))]
    if pickles:
        found = f"{len(pickles)} pickled result(s) of an older tool ({pickles[0]})"
        problem = f"{folder} holds {found}; pickles are never read"
    elif not files:
        problem = f"{folder} is empty"
    else:
        shown = ", ".join(files[:5]) + (", ..." if len(files) > 5 else "")
        problem = f"{folder} holds no results ({shown})"
    return DataError(
        problem,
        valid="a run folder (manifest.json, samples/*.jsonl), or jsonl, parquet or csv files of records",
        next_step=f"evaluate {'again ' if pickles else ''}with {HOW_TO_EVALUATE}",
    )
