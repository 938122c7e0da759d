"""Where generated rows go: one parquet file, save_to_disk folders, and the hub."""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infini_eval.errors import DataError

if TYPE_CHECKING:
    from infini_eval.datasets.plan import GenerateConfig


def write(
    args: argparse.Namespace, config: GenerateConfig, rows: Iterator[dict[str, Any]], settings: dict[str, Any]
) -> tuple[int, list[Path]]:
    """Write all rows into one parquet file, or a save_to_disk folder for each length and depth: how many, and where."""
    try:
        return _write(args, config, rows, settings)
    except OSError as error:
        raise _unwritable(error.filename or args.save_path, error.strerror or str(error)) from error


def check_place(target: Path) -> None:
    """Say before the work that nothing could be written."""
    try:
        near = next(place for place in (target, *target.absolute().parents) if place.exists())
    except OSError as error:
        raise _unwritable(target, error.strerror or str(error)) from error
    if near.is_file() and not (near == target and target.suffix == ".parquet"):
        raise _unwritable(target, f"{near} is a file")
    if not os.access(near, os.W_OK):
        raise _unwritable(target, f"no right to write into {near}")


def _unwritable(place: str | Path, reason: str) -> DataError:
    return DataError(f"--save_path {place} cannot be written: {reason}", valid="a folder that is yours, or a new one")


def _write(
    args: argparse.Namespace, config: GenerateConfig, rows: Iterator[dict[str, Any]], settings: dict[str, Any]
) -> tuple[int, list[Path]]:
    from infini_eval.datasets.write import PARQUET_NAME, write_parquet, write_saved_dataset

    target = Path(args.save_path)
    if args.format == "parquet":
        file = target if target.suffix == ".parquet" else target / PARQUET_NAME
        return write_parquet(rows, file, settings), [file]
    count, places = 0, []
    kind = "eval" if config.is_eval else "finetune"
    for (length, depth), cell in itertools.groupby(rows, key=lambda row: (row["context_length"], row["depth_percent"])):
        name = f"needle_{kind}_data_and_{length}_ctx_and_depth_{depth}"
        name += f"_and_id_{args.id or 1}_and_num_shots_{args.num_shots}"
        places.append(target / name)
        count += write_saved_dataset(cell, places[-1], settings)
    return count, places


def push(hub_id: str, places: list[Path]) -> None:
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        api.create_repo(hub_id, repo_type="dataset", exist_ok=True)
        for place in places:
            if place.is_dir():
                api.upload_folder(repo_id=hub_id, repo_type="dataset", folder_path=place, path_in_repo=place.name)
            else:
                api.upload_file(
                    repo_id=hub_id, repo_type="dataset", path_or_fileobj=place, path_in_repo=f"data/{place.name}"
                )
    except (OSError, ValueError) as error:  # the hub's HTTP errors are OSErrors
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"upload to {hub_id} failed: {reason}", next_step="the data are on disk; try again") from error
