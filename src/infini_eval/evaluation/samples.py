"""Which rows of the data are asked: filtered, drawn by seed, and validated before any model is loaded."""

from __future__ import annotations

from infini_eval.api.task import LoadedData, Task
from infini_eval.config import EvalConfig
from infini_eval.datasets.parquet import load_data, select_samples
from infini_eval.distributed.launch import World
from infini_eval.errors import DataError
from infini_eval.evaluation.telling import say
from infini_eval.records import Sample


def load_task_data(config: EvalConfig, task: Task) -> LoadedData:
    """All rows of the data that pass the configuration's filters, read with the task's own options."""
    filters = {"num_shots": config.num_shots, "num_digits": config.num_digits}
    options = task.with_defaults(dict(config.task_options))
    more = {"options": options} if options else {}
    return load_data(
        task, config.eval_dataset_path, **filters, context_length=config.context_length, depths=config.depths, **more
    )


def choose_samples(config: EvalConfig, task: Task, world: World) -> tuple[LoadedData, list[Sample]]:
    """The rows to ask, validated; alike on every rank."""
    data = load_task_data(config, task)
    samples, notes = (task.select or select_samples)(data.samples, config.num_samples, config.seed)
    findings = [str(finding) for finding in task.validate(samples)]
    if findings and config.strict_data:
        raise DataError(
            f"{data.source} does not pass validation: " + "; ".join(findings),
            next_step="mend the data, or leave --strict-data out to be warned only",
        )
    say(world, [*data.notes, *notes, *findings])
    return data, samples
