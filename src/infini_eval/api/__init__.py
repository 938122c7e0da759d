"""What backends, tasks, scorers, reports and exports promise, ours and those of other packages; nothing here computes."""

from infini_eval.api.backend import Backend, Batch, BatchPlan, EarlyStop, Footprint, LazyBackend, TextBackend, WorkItem
from infini_eval.api.export import Export, export
from infini_eval.api.report import Report, report
from infini_eval.api.scorer import Scorer, scorer
from infini_eval.api.task import DataFinding, Generator, Insert, LoadedData, Question, Recipe, RowInputs, Task
from infini_eval.config import EvalConfig
from infini_eval.options import option
from infini_eval.records import NeedlePosition, Response, Sample, SampleRecord, Score

__all__ = [
    "Backend",
    "Batch",
    "BatchPlan",
    "DataFinding",
    "EarlyStop",
    "EvalConfig",
    "Export",
    "Footprint",
    "Generator",
    "Insert",
    "LazyBackend",
    "LoadedData",
    "NeedlePosition",
    "Question",
    "Recipe",
    "Report",
    "Response",
    "RowInputs",
    "Sample",
    "SampleRecord",
    "Score",
    "Scorer",
    "Task",
    "TextBackend",
    "WorkItem",
    "export",
    "option",
    "report",
    "scorer",
]
