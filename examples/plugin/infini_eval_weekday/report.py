"""wrong_answers: the answers that were wrong, as a CSV file for a spreadsheet."""

import csv
from pathlib import Path
from typing import Any

from infini_eval.api import report


@report("wrong_answers")
def wrong_answers(run: Any, folder: Path) -> list[Path]:
    """Write wrong_answers.csv: sample, depth, expected answer, what the model said."""
    import pyarrow.parquet as pq

    columns = ["id", "depth_percent", "answer", "generation_text", "correct"]
    rows = pq.read_table(run.folder / "samples.parquet", columns=columns).to_pylist()
    path = folder / "wrong_answers.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns[:-1], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(row for row in rows if row["correct"] == 0)
    return [path]
