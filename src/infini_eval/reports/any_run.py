"""One call for any run: by depths for needle tasks, by questions for tasks whose answers a judge reads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from infini_eval.api import registry
from infini_eval.errors import ConfigError, DataError
from infini_eval.reports.analyze import AnalysedRun, analyze_run
from infini_eval.reports.ascii_bars import render_quiet
from infini_eval.reports.model_facts import model_facts
from infini_eval.results.manifest import MANIFEST, read_manifest

if TYPE_CHECKING:
    from infini_eval.reports.questions import AnalysedQuestions


def analyze_any(
    source: str | Path, *, ascii_only: bool | None = None, failed_as_wrong: bool = False
) -> AnalysedRun | AnalysedQuestions:
    """The report of a run folder, or of a JSON file of answers; nothing is written."""
    source = Path(source)
    kind = "questions" if source.is_file() else report_kind(source)
    if kind == "none":
        raise DataError(
            f"{source} holds a judge's verdicts",
            next_step=f"infini-eval analyze {source.parent.parent}, the run judged",
        )
    if kind == "questions":
        from infini_eval.reports.questions import analyze_questions

        return analyze_questions(source, ascii_only=ascii_only, failed_as_wrong=failed_as_wrong)
    return analyze_run(source, ascii_only=ascii_only, failed_as_wrong=failed_as_wrong)


def quiet_line(run: AnalysedRun | AnalysedQuestions, *, ascii_only: bool) -> str:
    """One line a run (and context length)."""
    return render_quiet(run.summary, ascii_only=ascii_only) if isinstance(run, AnalysedRun) else run.line


def report_kind(folder: Path) -> str:
    """ "depths", "questions" or "none", as the run's task says; "depths" where nobody says."""
    if not (folder / MANIFEST).is_file():
        return "depths"
    task = model_facts(read_manifest(folder).to_json()).task
    try:
        return str(registry.load("tasks", task).report)
    except ConfigError:  # a task of another installation: its records are read as any
        return "depths"
