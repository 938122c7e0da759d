"""Where an answer may stop early: as soon as no further token can change any score that the run records."""

from __future__ import annotations

from infini_eval import registry
from infini_eval.backends._backend import AnyBackend, Settled
from infini_eval.config import EvalConfig
from infini_eval.records import Sample
from infini_eval.tasks._task import Task

UNFINISHED = "\ufffd"  # what the decoder writes for a character of which only the first bytes are there


def scorer_names(config: EvalConfig, task: Task) -> list[str]:
    """The scorers whose scores are recorded, the one that counts first."""
    return list(dict.fromkeys([config.scorer, *task.scorers]))


def settled_when(config: EvalConfig, backend: AnyBackend) -> Settled | None:
    """The test that the backend should apply after each token; None where the answers must run to their end.

    That is so with `--no-early-stop`, with a scorer that wants the whole text, and with backends that get whole texts.
    """
    task: Task = registry.load("tasks", config.task)
    tests = [registry.companion("scorers", name, "settled") for name in scorer_names(config, task)]
    if not config.early_stop or not hasattr(backend, "stop_when") or None in tests:
        return None

    def settled(text: str, sample: Sample) -> bool:
        text = text.rstrip(UNFINISHED)
        return all(test(text, sample) for test in tests)

    return settled


def stop_early(config: EvalConfig, backend: AnyBackend) -> None:
    """Hand the test to the backend, where there is one."""
    settled = settled_when(config, backend)
    if settled is not None:
        getattr(backend, "stop_when")(settled)  # noqa: B009 - not every backend has it
