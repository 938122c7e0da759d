"""Results for experiment trackers: TensorBoard, MLflow and Weights & Biases, each to its service or to a folder, offline."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infini_eval.api.export import export
from infini_eval.errors import BackendError, ConfigError, in_one_line
from infini_eval.exports._facts import Point, RunFacts, facts_of
from infini_eval.packages import require
from infini_eval.reports.model import AnalysedRun, to_text
from infini_eval.results.files import make_folder

PROJECT = "infini-eval"  # experiment or project where the environment names none
OURS = ".infini-eval"  # the end of our event files' names: a repeated export replaces them
KEY = "infini_eval.key"


def _ready_for_tensorboard(place: Path | None) -> None:
    require("tensorboard", extra="tensorboard", purpose="the export tensorboard")


@export("tensorboard", place="tensorboard", ready=_ready_for_tensorboard)
def tensorboard(runs: Sequence[AnalysedRun], place: Path) -> list[str]:
    """tensorboard: scalars by checkpoint step, curves over depth, and the report's text

    The checkpoints of one training run share a folder, so that their accuracies are one curve over steps; curves over depth
    have the depth in percent as their step, and a folder for each run.
    """
    facts = facts_of(runs)
    shared = Counter((one.series_and_step, one.task, tuple(point.name for point in one.points())) for one in facts)
    folders = set()
    for one in facts:
        at = one.series_and_step
        alone = shared[at, one.task, tuple(point.name for point in one.points())] == 1
        folder = place / (at[0] if at and alone else one.name)
        step = at[1] if at else 0
        points = one.points()
        _write_events(folder, f"{step}.{one.key}", one, [(point, step) for point in points if point.step is None])
        curves = [(point, point.step) for point in points if point.step is not None]
        if curves:
            _write_events(folder / f"by-depth-{step}", one.key, one, curves)
        folders.add(folder)
    return [f"{folder}: read it with tensorboard --logdir {place}" for folder in sorted(folders)]


def _write_events(folder: Path, name: str, facts: RunFacts, points: Sequence[tuple[Point, int]]) -> None:
    """One event file, in place of the one that an earlier export of the same run left."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.text.metadata import create_summary_metadata
    from tensorboard.summary.writer.event_file_writer import EventFileWriter
    from tensorboard.util.tensor_util import make_tensor_proto

    make_folder(folder)
    for old in folder.glob(f"events.out.tfevents.*.{name}{OURS}"):
        old.unlink()
    at = facts.started.timestamp()
    writer = EventFileWriter(str(folder), filename_suffix=f".{name}{OURS}")
    for point, step in points:
        value = Summary.Value(tag=point.name, simple_value=point.value)
        writer.add_event(Event(wall_time=at, step=step, summary=Summary(value=[value])))
    text = "\n".join(f"    {line}" for line in facts.run.text.splitlines())  # markdown: as it is, in columns
    shown = Summary.Value(
        tag=f"report/{facts.name}",
        metadata=create_summary_metadata("report", ""),
        tensor=make_tensor_proto([text.encode()], dtype="string"),
    )
    writer.add_event(Event(wall_time=at, step=points[0][1] if points else 0, summary=Summary(value=[shown])))
    writer.close()


def _ready_for_mlflow(place: Path | None) -> None:
    require("mlflow", extra="mlflow", purpose="the export mlflow")
    if place is None and not os.environ.get("MLFLOW_TRACKING_URI"):
        raise ConfigError(
            "the export mlflow does not know where to write",
            valid="MLFLOW_TRACKING_URI in the environment (a server, a database), or a folder named with --output",
            next_step="infini-eval export RUN --format mlflow --output mlruns",
        )


@export("mlflow", place="mlruns", service=True, ready=_ready_for_mlflow)
def mlflow(runs: Sequence[AnalysedRun], place: Path | None) -> list[str]:
    """mlflow: a run each with its settings, metrics, and summary.json and report.txt as artifacts

    To MLFLOW_TRACKING_URI, or to a folder, in the experiment MLFLOW_EXPERIMENT_NAME (else infini-eval). A run that was
    exported before is replaced. Curves over depth have the depth in percent as their step.
    """
    module = require("mlflow", extra="mlflow", purpose="the export mlflow")
    uri = os.environ["MLFLOW_TRACKING_URI"] if place is None else place.resolve().as_uri()
    if uri.startswith("file:"):
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # newer releases refuse folders unless told
    try:
        client = module.MlflowClient(tracking_uri=uri)
        experiment = _mlflow_experiment(client)
        for one in facts_of(runs):
            _log_to_mlflow(module, client, experiment, one)
    except module.exceptions.MlflowException as error:
        raise BackendError(f"MLflow at {uri} refused the results: {in_one_line(error)}") from error
    except OSError as error:
        raise BackendError(f"MLflow at {uri} cannot be reached or written: {in_one_line(error)}") from error
    hint = f": MLFLOW_ALLOW_FILE_STORE=true mlflow ui --backend-store-uri {uri}" if place else ""
    return [f"{len(runs)} run(s) in {uri}{hint}"]


def _mlflow_experiment(client: Any) -> str:
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
    found = client.get_experiment_by_name(name)
    return str(found.experiment_id if found else client.create_experiment(name))


def _log_to_mlflow(module: Any, client: Any, experiment: str, facts: RunFacts) -> None:
    entities = module.entities
    for old in client.search_runs([experiment], filter_string=f"tags.`{KEY}` = '{facts.key}'"):
        client.delete_run(old.info.run_id)
    started = round(facts.started.timestamp() * 1000)
    tags = {KEY: facts.key, "task": facts.task, "model": facts.model}
    run = client.create_run(experiment, start_time=started, run_name=facts.name, tags=tags).info.run_id
    at = facts.series_and_step
    step = at[1] if at else 0
    points = [
        entities.Metric(point.name, point.value, started, step if point.step is None else point.step)
        for point in facts.points()
    ]
    settings = [entities.Param(name, text) for name, text in facts.settings().items()]
    for start in range(0, len(points), 1000):  # what a server takes at once
        client.log_batch(run, metrics=points[start : start + 1000])
    for start in range(0, len(settings), 100):
        client.log_batch(run, params=settings[start : start + 100])
    client.log_text(run, to_text(facts.run.summary), "summary.json")
    client.log_text(run, facts.run.text, "report.txt")
    client.set_terminated(run)


OFFLINE = ("offline", "dryrun", "disabled")


def _ready_for_wandb(place: Path | None) -> None:
    module = require("wandb", extra="wandb", purpose="the export wandb")
    if place is None and os.environ.get("WANDB_MODE") not in OFFLINE and not module.login(prompt=False):
        raise ConfigError(
            "the export wandb has no key of Weights & Biases",
            valid="wandb login, WANDB_API_KEY, or WANDB_MODE=offline; or a folder named with --output, which is offline too",
            next_step="infini-eval export RUN --format wandb --output wandb-runs",
        )


@export("wandb", place="wandb-runs", service=True, ready=_ready_for_wandb)
def wandb(runs: Sequence[AnalysedRun], place: Path | None) -> list[str]:
    """wandb: a run each with its settings, metrics, the accuracy by depth as a table, and the report

    To the project WANDB_PROJECT (else infini-eval), as WANDB_MODE says; a folder is written offline, for `wandb sync`.
    A run that was exported before is continued under the same id.
    """
    module = require("wandb", extra="wandb", purpose="the export wandb")
    if place is not None:
        make_folder(place)
    said = []
    for one in facts_of(runs):
        try:
            said.append(_log_to_wandb(module, one, place))
        except module.errors.Error as error:
            raise BackendError(f"Weights & Biases refused the results: {in_one_line(error)}") from error
    if module.run is None:  # no run of the caller's own: wait until the last byte is written
        module.teardown()
    return said


def _log_to_wandb(module: Any, facts: RunFacts, place: Path | None) -> str:
    at = facts.series_and_step
    run = module.init(
        project=os.environ.get("WANDB_PROJECT") or PROJECT,
        name=facts.name,
        group=at[0] if at else None,
        id=facts.key,
        resume="allow",
        dir=None if place is None else str(place),
        mode=None if place is None else "offline",
        config=facts.settings(),
        reinit="create_new",  # never the caller's own run
        settings=module.Settings(silent=True, console="off", disable_git=True, save_code=False),
    )
    points = facts.points()
    depths = [
        [point.name.removeprefix("accuracy_by_depth/"), point.step, point.value]
        for point in points
        if point.step is not None
    ]
    numbers = {point.name: point.value for point in points if point.step is None}
    table = (
        {"accuracy_by_depth": module.Table(columns=["task", "depth_percent", "accuracy"], data=depths)}
        if depths
        else {}
    )
    run.log(numbers | table | ({"checkpoint_step": at[1]} if at else {}))
    run.summary["report"] = facts.run.text[:60_000]
    folder, url = Path(run.dir).parent, None if run.offline else run.url
    run.finish()
    return url or f"{folder}: wandb sync {folder}"
