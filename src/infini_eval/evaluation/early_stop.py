"""The scorers of a run, and where its answers may stop early: as soon as no further token can change a recorded score."""

from __future__ import annotations

from infini_eval.api import registry
from infini_eval.api.backend import Backend, EarlyStop
from infini_eval.api.scorer import Scorer
from infini_eval.api.task import Task
from infini_eval.config import EvalConfig


def recorded_scorers(config: EvalConfig, task: Task) -> dict[str, Scorer]:
    """The scorers whose scores are recorded, by name, the one that counts first."""
    return {name: registry.scorer(name) for name in dict.fromkeys([config.scorer, *task.scorers])}


def early_stop_of(config: EvalConfig, task: Task, backend: Backend) -> EarlyStop | None:
    """The rule that ends answers; None with --no-early-stop, with a scorer or a backend that wants whole texts."""
    if not config.early_stop or not backend.stops_early:
        return None
    return EarlyStop.of(list(recorded_scorers(config, task).values()))
