"""From a run folder to its summary and text report: the one call that commands and scripts use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from infini_eval.api import registry
from infini_eval.errors import ConfigError, DataError
from infini_eval.reports import text
from infini_eval.reports.model import AnalysedRun, DepthRun
from infini_eval.reports.model_facts import model_facts, one_line
from infini_eval.reports.statistics.samples import scored_samples
from infini_eval.reports.summary import summarise, with_failures_as_wrong, with_scores
from infini_eval.results.manifest import MANIFEST, read_manifest
from infini_eval.results.reader import RunRecords, read_run

KEPT_EXCERPTS = 200  # of right answers in each file; those of wrong ones are all kept


def analyze_any(source: str | Path, *, ascii_only: bool | None = None, failed_as_wrong: bool = False) -> AnalysedRun:
    """The report of a run folder, or of a JSON file of answers; nothing is written."""
    source = Path(source)
    kind = "questions" if source.is_file() else report_kind(source)
    if kind == "none":
        raise DataError(
            f"{source} holds a judge's verdicts",
            next_step=f"infini-eval analyze {source.parent.parent}, the run judged",
        )
    if kind == "questions":
        from infini_eval.reports.judged import (
            analyze_questions,
        )  # reads the task's files with numpy: --help stays light

        return analyze_questions(source, ascii_only=ascii_only, failed_as_wrong=failed_as_wrong)
    return analyze_run(source, ascii_only=ascii_only, failed_as_wrong=failed_as_wrong)


def report_kind(folder: Path) -> str:
    """ "depths", "questions" or "none", as the run's task says; "depths" where nobody says."""
    if not (folder / MANIFEST).is_file():
        return "depths"
    task = model_facts(read_manifest(folder).to_json()).task
    try:
        return str(registry.load("tasks", task).report)
    except ConfigError:  # a task of another installation: its records are read as any
        return "depths"


def analyze_run(folder: str | Path, *, ascii_only: bool | None = None, failed_as_wrong: bool = False) -> DepthRun:
    """Read and judge one run folder; nothing is written. DataError or RunFolderError where nothing can be reported.

    `ascii_only` None means plain ASCII where standard output cannot show the bars. Failed samples count as neither
    right nor wrong unless `failed_as_wrong`.
    """
    if ascii_only is None:
        ascii_only = not text.terminal_shows_bars()
    stored = read_run(
        Path(folder), scorers=registry.names("scorers"), excerpts=KEPT_EXCERPTS, without=("prompt_sha256", "id")
    )
    records = with_scores(stored)
    if failed_as_wrong:
        records = with_failures_as_wrong(records)
    return report_on(records, Path(folder), ascii_only=ascii_only)


def report_on(records: RunRecords, folder: Path, *, ascii_only: bool) -> DepthRun:
    """The report of records that are judged, as a run that lies in `folder`; DataError where none was answered."""
    scored = scored_samples(records)
    if not len(scored):
        raise _nothing_scored(records)
    summary = summarise(_noting_depths(records), scored)
    return DepthRun(
        folder=folder,
        summary=summary,
        text=text.render(summary, ascii_only=ascii_only),
        line=text.render_quiet(summary, ascii_only=ascii_only),
        records=records,
        scored=scored,
    )


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
