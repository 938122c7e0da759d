"""The JSON file of --results_file, which older scripts read: accuracy of the run and by depth."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infini_eval.errors import RunFolderError
from infini_eval.records import RunManifest
from infini_eval.results.files import make_folder, os_error, write_json
from infini_eval.results.merge import PARQUET


@dataclass(frozen=True)
class ResultsFile:
    """Where the file goes; `failed_as_wrong` counts failed samples as wrong, else they are neither right nor wrong."""

    path: str | Path
    failed_as_wrong: bool = False

    def check(self) -> None:
        """Make the file's folder and prove that it can be written, before the evaluation starts.

        Raises:
            RunFolderError: it cannot.
        """
        path = Path(self.path)
        make_folder(path.parent)
        existed = path.exists()
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o666))
            if not existed:
                path.unlink()
        except OSError as error:
            problem = os_error(path, error).problem
            raise RunFolderError(problem, next_step="name another file with --results_file") from error

    def write(self, folder: str | Path, manifest: RunManifest) -> None:
        """Write `evaluation_summary` and `depth_results` of a run that has been merged; accuracies are 0 to 1."""
        depths: dict[float | None, list[float]] = {}
        for depth, correct in _depths_and_scores(Path(folder) / PARQUET):
            scores = depths.setdefault(depth, [])
            if correct is not None or self.failed_as_wrong:
                scores.append(correct or 0.0)
        summary = _evaluation_summary(manifest, [score for scores in depths.values() for score in scores])
        by_depth = sorted((depth, scores) for depth, scores in depths.items() if depth is not None)
        results = [{"depth": depth, **_totals(scores)} for depth, scores in by_depth]
        write_json(Path(self.path), {"evaluation_summary": summary, "depth_results": results})


def _depths_and_scores(path: Path) -> Iterator[tuple[float | None, float | None]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    for block in file.iter_batches(columns=["depth_percent", "correct"]):
        numbers = (column.cast(pa.float64()).to_pylist() for column in block.columns)
        yield from zip(*numbers, strict=True)


def _evaluation_summary(manifest: RunManifest, scores: Sequence[float]) -> dict[str, Any]:
    settings = {**manifest.environment, **manifest.identity}
    totals = _totals(scores)
    return {
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "checkpoint_path": settings.get("ckpt_path"),
        "dataset_path": settings.get("eval_dataset_path"),
        "num_samples": settings.get("num_samples"),
        "seed": settings.get("seed"),
        "overall_accuracy": totals["accuracy"],
        "total_correct": totals["correct"],
        "total_samples": totals["total"],
    }


def _totals(scores: Sequence[float]) -> dict[str, Any]:
    correct = sum(scores)
    whole = int(correct) if correct == int(correct) else correct
    return {"correct": whole, "total": len(scores), "accuracy": correct / len(scores) if scores else None}
