"""From a run folder to its summary and text report: the one call that commands and scripts use."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from infini_eval.api import registry
from infini_eval.errors import DataError
from infini_eval.reports import ascii_bars, summary
from infini_eval.reports.model_facts import one_line
from infini_eval.reports.scoring import with_failures_as_wrong, with_scores
from infini_eval.reports.statistics.scored import Scored, scored_samples
from infini_eval.reports.terminal import terminal_shows_bars
from infini_eval.results.reader import RunRecords, read_run

KEPT_EXCERPTS = 200  # of right answers in each file; those of wrong ones are all kept


@dataclass(frozen=True)
class AnalysedRun:
    """A run as reports see it: its records, the scored samples, the summary (JSON-ready) and the text report."""

    folder: Path
    records: RunRecords
    scored: Scored
    summary: dict[str, Any]
    text: str

    def write(self, folder: Path | None = None) -> list[Path]:
        """Write summary.json and report.txt, each whole or not at all; into the run's own folder by default."""
        folder = self.folder if folder is None else folder
        return [path for report in registry.reports("always") for path in report(self, folder)]

    def write_page(self, folder: Path | None = None) -> list[Path]:
        """Write report.html, and plots/*.png with a CSV beside each; takes some seconds."""
        folder = self.folder if folder is None else folder
        return [path for report in registry.reports("page") for path in report(self, folder)]


def analyze_run(folder: str | Path, *, ascii_only: bool | None = None, failed_as_wrong: bool = False) -> AnalysedRun:
    """Read and judge one run folder; nothing is written. DataError or RunFolderError where nothing can be reported.

    `ascii_only` None means plain ASCII where standard output cannot show the bars. Failed samples count as neither
    right nor wrong unless `failed_as_wrong`.
    """
    if ascii_only is None:
        ascii_only = not terminal_shows_bars()
    found = read_run(
        Path(folder), scorers=registry.names("scorers"), excerpts=KEPT_EXCERPTS, without=("prompt_sha256", "id")
    )
    records = with_scores(found)
    if failed_as_wrong:
        records = with_failures_as_wrong(records)
    scored = scored_samples(records)
    if not len(scored):
        raise _nothing_scored(records)
    made = summary.summarise(_noting_depths(records), scored)
    return AnalysedRun(Path(folder), records, scored, made, ascii_bars.render(made, ascii_only=ascii_only))


def _noting_depths(records: RunRecords) -> RunRecords:
    import numpy as np

    missing = int(np.isnan(records.number("depth_percent")).sum())
    if not missing:
        return records
    return replace(records, notes=(*records.notes, f"{missing} record(s) without depth_percent were left out"))


def _nothing_scored(records: RunRecords) -> DataError:
    import numpy as np

    errors = [error for error in records.texts("error", np.arange(min(len(records), 1000))) if error]
    reason = f"; the first says: {one_line(errors[0])}" if errors else ""
    return DataError(
        f"none of the {len(records)} samples in {records.folder} was answered{reason}",
        next_step="mend the cause and run the evaluation's own command again: it repeats failed samples",
    )
