"""The toolkit from Python: evaluate a model, make data, analyse and compare runs, without a command line.

import infini_eval

demo = "checkpoints/infini-demo"
made = infini_eval.generate_dataset("data/16k", tokenizer=demo, context_lengths=16384, depths=(0, 50, 100))
result = infini_eval.evaluate(demo, data=made.path, num_samples=10)
result.summary.verdict, result.to_pandas()
"""

from __future__ import annotations

import argparse
import hashlib
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from infini_eval.api import registry
from infini_eval.api.export import SOURCES
from infini_eval.config import EvalConfig, JudgeConfig, ModelSettings, Sampling, Topology
from infini_eval.data.config import GenerateConfig
from infini_eval.errors import ConfigError, DataError, InfiniEvalError
from infini_eval.options import column_pairs, names_list
from infini_eval.reports.analyze import analyze_any
from infini_eval.reports.compare import compare_runs
from infini_eval.reports.judged import analyze_questions
from infini_eval.reports.model import AnalysedRun, Comparisons, QuestionSummary, Summary
from infini_eval.results.reader import find_runs

if TYPE_CHECKING:
    from infini_eval.data.dataset import GeneratedDataset
    from infini_eval.hf.from_transformers import Imported

_GROUPS: tuple[tuple[str, type], ...] = (("model", ModelSettings), ("topology", Topology), ("sampling", Sampling))


class EvalResult:
    """A finished run: where it lies, its summary, its samples, and how it looks."""

    def __init__(self, run: AnalysedRun) -> None:
        self._run = run
        self.folder = Path(run.folder)

    @property
    def summary(self) -> Summary | QuestionSummary:
        """Everything the report says, typed: a QuestionSummary for answers that a judge reads, a Summary for others."""
        return self._run.summary

    def to_json(self) -> dict[str, Any]:
        """The content of summary.json, whose keys docs/summary.schema.json describes."""
        return self._run.summary.to_json()

    @property
    def accuracy(self) -> float:
        """The average accuracy in percent, over depths and lengths.

        Raises:
            DataError: there is no such average: a judge's run has an accuracy for each judge (`.summary.judges`).
        """
        average = self.summary.summary_stats.average_accuracy if isinstance(self.summary, Summary) else None
        if average is None:
            raise DataError(f"{self.folder} has no average accuracy", valid="an answered run that a scorer has read")
        return float(average)

    def to_pandas(self) -> Any:
        """A pandas DataFrame of one row a sample, with every column that was recorded."""
        import pyarrow.parquet as pq

        return pq.read_table(self.folder / "samples.parquet").to_pandas()

    def report(self) -> str:
        """The report as text: accuracy by depth with intervals, verdicts, what went wrong."""
        return self._run.text

    def export(self, format: str, output: str | Path | None = None) -> list[str]:
        """Write the run in another tool's form (`infini_eval.export`); returns what was written."""
        return export(self, format=format, output=output)

    def write_page(self, folder: str | Path | None = None) -> list[Path]:
        """Write report.html and plots, into the run's folder by default; returns the files."""
        return self._run.write_page(None if folder is None else Path(folder))

    def __repr__(self) -> str:
        summary = self.summary
        count = f"{summary.total_samples} samples" if isinstance(summary, Summary) else f"{summary.answers} answers"
        return f"<EvalResult {self.folder}: {count}>"

    def _repr_html_(self) -> str:
        """A card for notebooks: accuracy with its interval, verdict, and tables by length and depth."""
        from infini_eval.reports.page import card

        return card(self.summary)


def evaluate(
    model: Any,
    *,
    data: Any,
    columns: str | Mapping[str, str] | None = None,
    task: str = "passkey",
    save_path: str | Path | None = None,
    backend: str | None = None,
    tokenizer: Any = None,
    settings: Sequence[Any] = (),
    **options: Any,
) -> EvalResult:
    """Evaluate a model on a task; the same call again continues an interrupted run.

    Args:
        model: the path of a nanotron checkpoint or of a Hugging Face model, a name that `backend` understands (or both:
            "fake:any"), a `NativeModel`, a model of transformers (with `tokenizer`), or a function from a list of prompts
            to answers.
        data: a path, a hub id, a `datasets.Dataset`, a pandas DataFrame, or rows as dictionaries.
        columns: our columns and the data's own, as {"prompt": "question", "answer": "target"} or
            "prompt=question,answer=target"; those that are not named are guessed where they have to be, which is logged.
        task: what is asked; data need a prompt and an answer (docs/data.md says what else is read).
        save_path: the run folder; a temporary one where None.
        backend: who answers, where `model` is a name: nanotron, transformers, vllm, openai, gemini, fake, or another
            package's.
        tokenizer: a path or hub id; the tokenizer itself beside a model of transformers.
        settings: settings objects of the backend (RequestSettings, LoadSettings, …).
        options: fields of EvalConfig, ModelSettings, Topology and Sampling by name: num_samples, depths, memory, dtype,
            tp, temperature, …; `task_options` as a dictionary.

    Raises:
        InfiniEvalError: what is wrong, what would be valid, and what to do next.
    """
    folder = Path(save_path) if save_path is not None else Path(tempfile.mkdtemp(prefix="infini_eval-"))
    open_backend = None
    if not isinstance(model, str | Path):
        from infini_eval.loaded_models import open_loaded

        backend, name, open_backend = open_loaded(model, tokenizer)
        options = _settings_of(model) | options
        tokenizer = tokenizer if isinstance(tokenizer, str | Path) else None
    else:
        backend, name = (backend, str(model)) if backend is not None else backend_and_name(str(model))
    path, make_data = _data_on_disk(data, folder)
    config = _config(
        _task_fields(task)
        | {"model_path": name, "save_path": str(folder), "eval_dataset_path": path, "backend": backend}
        | {"tokenizer": None if tokenizer is None else str(tokenizer), "backend_settings": tuple(settings)},
        {"columns": columns or (), **options},
    )
    ready_to_report(config)
    from infini_eval.evaluation.run import evaluate as run_evaluation

    outcome = run_evaluation(
        config if open_backend else registry.for_backend(config), make_data=make_data, open_backend=open_backend
    )
    if outcome.is_main:
        report_to(config, folder)
    return analyze(folder)


def generate_dataset(
    save_path: str | Path,
    *,
    tokenizer: str | Path,
    task: str = "passkey",
    format: Literal["parquet", "hf"] = "parquet",
    workers: int = 2,
    verify: bool = True,
    **options: Any,
) -> GeneratedDataset:
    """Make prompts of exact length and depth; `evaluate(model, data=made.path)` reads them.

    Args:
        save_path: a folder, or a file ending in .parquet.
        tokenizer: counts the tokens: a folder or file, a checkpoint, or a hub id.
        task: what is hidden and asked.
        format: one parquet file, or ("hf") a save_to_disk folder for each length and depth.
        workers: threads; they never change the rows.
        verify: tokenise each finished prompt once more and take its measures from that.
        options: fields of GenerateConfig by name: context_lengths, depths, num_prompts, num_digits, seed, haystack, …;
            a single length, depth or number of digits needs no tuple.

    Returns:
        The number of rows, the places where they lie, and notes and warnings.

    Raises:
        InfiniEvalError: what is wrong, what would be valid, and what to do next.
    """
    from infini_eval.data.dataset import generate_dataset as make

    names = {field.name for field in fields(GenerateConfig)} - {"task"}
    unknown = [name for name in options if name not in names]
    if unknown:
        raise ConfigError(f"generate_dataset() has no option {unknown[0]!r}", valid=", ".join(sorted(names)))
    for name in ("context_lengths", "char_counts", "depths", "num_digits"):
        if options.get(name) is not None:
            value = options[name]
            options[name] = tuple(value) if isinstance(value, Iterable) else (value,)
    config = GenerateConfig(task=task, **options)
    return make(config, save_path, tokenizer, format=format, workers=workers, verify=verify)


def analyze(run: str | Path) -> EvalResult:
    """The result that lies in a run folder; nothing is written.

    Raises:
        RunFolderError, DataError: there is nothing to report on.
    """
    return EvalResult(analyze_any(run))


def export(
    *sources: str | Path | EvalResult,
    format: str,
    output: str | Path | None = None,
    failed_as_wrong: bool = False,
    on_skip: Callable[[Path, InfiniEvalError], None] | None = None,
    **options: Any,
) -> list[str]:
    """Write runs, a checkpoint or a data set in another tool's form; nothing in their folders changes.

    Args:
        sources: what the format is made from: run folders, folders of such, or results of `evaluate`; one checkpoint; one
            data set.
        format: csv, parquet, lm-eval, inspect, tensorboard, mlflow, wandb; hf (of a checkpoint); lm-eval-task (of a data set); or
            another package's.
        output: file or folder; by default one in the working directory, or the service that the environment names.
        failed_as_wrong: runs: samples that failed count as wrong answers.
        on_skip: runs: called with each folder below those given that holds no readable run.
        options: settings of the format's own, by name.

    Returns:
        What was written, in words.

    Raises:
        InfiniEvalError: what is wrong, what would be valid, and what to do next.
    """
    made = registry.export(format)
    place = None if output is None else Path(output)
    if made.made_from == "runs":
        return made(_analysed(sources, failed_as_wrong, on_skip), place, **options)
    if failed_as_wrong:
        raise ConfigError(
            f"--failed-as-wrong: the export {format} is not made from runs", valid=SOURCES[made.made_from]
        )
    if len(sources) != 1 or isinstance(sources[0], EvalResult):
        given = "a result of evaluate()" if len(sources) == 1 else f"{len(sources)} sources"
        raise ConfigError(f"the export {format} was given {given}", valid=SOURCES[made.made_from])
    return made(Path(sources[0]) if made.made_from == "checkpoint" else str(sources[0]), place, **options)


def _analysed(
    sources: Sequence[str | Path | EvalResult],
    failed_as_wrong: bool,
    on_skip: Callable[[Path, InfiniEvalError], None] | None,
) -> list[AnalysedRun]:
    """Every run at or below the sources, analysed."""
    analysed: list[AnalysedRun] = []
    for given in sources:
        root = Path(given.folder if isinstance(given, EvalResult) else given)
        for folder in find_runs(root):
            try:
                analysed.append(analyze_any(folder, failed_as_wrong=failed_as_wrong))
            except InfiniEvalError as error:
                if folder == root:
                    raise
                if on_skip is not None:
                    on_skip(folder, error)
    if not analysed:
        raise DataError(
            "no run to export",
            valid=SOURCES["runs"],
            next_step="see what each folder holds: infini-eval analyze FOLDER",
        )
    return analysed


def import_model(
    source: str | Path,
    output: str | Path,
    *,
    segment_length: int,
    gate_init: str | float = "closed",
    gate_activation: str = "hard_sigmoid",
    dtype: str | None = None,
    tp: int = 1,
    pp: int = 1,
) -> Imported:
    """Make a nanotron Infini checkpoint, to continue training from, of a Llama in Hugging Face's format.

    Args:
        source: a folder with config.json, safetensors files and tokenizer.json.
        output: a folder that is new or empty; the checkpoint is its subfolder `0`.
        segment_length: tokens of a segment.
        gate_init: closed, open or zeros as far as the activation has them, or a balance factor.
        gate_activation: hard_sigmoid, orig_sigmoid, orig_tanh or tanh_abs.
        dtype: of the weights; the source's own by default.
        tp, pp: how the files are cut.

    Raises:
        InfiniEvalError: what is wrong, what would be valid, and what to do next.
    """
    from infini_eval.hf.from_transformers import import_model as make

    return make(
        Path(source),
        Path(output),
        segment_length=segment_length,
        gate_init=str(gate_init),
        gate_activation=gate_activation,
        dtype=dtype,
        tp=tp,
        pp=pp,
    )


def report_to(config: EvalConfig, folder: str | Path) -> list[str]:
    """Export a finished run as its `report_to` says, files and local stores into the run folder; returns what was written.

    Raises:
        InfiniEvalError: an export could not be made; the run itself is complete.
    """
    if not config.report_to:
        return []
    said: list[str] = []
    run = analyze_any(folder, failed_as_wrong=config.failed_as_wrong)
    for name in config.report_to:
        made = registry.export(name)
        try:
            said += made([run], None if made.service else Path(folder) / made.place)
        except InfiniEvalError as error:
            again = f"the run is complete; export it again: infini-eval export {folder} --format {name}"
            raise type(error)(error.problem, valid=error.valid, next_step=again) from error
    return said


def ready_to_report(config: EvalConfig) -> None:
    """Find out before a run whether its exports can be made.

    Raises:
        InfiniEvalError: an unknown name or one that is not made from runs, a package that is missing, a service without
            an address or a key.
    """
    for name in config.report_to:
        made = registry.export(name)
        if made.made_from != "runs":
            raise ConfigError(
                f"--report-to {name}: that export is not made from runs, but from {SOURCES[made.made_from]}",
                valid=", ".join(name for name, one in registry.exports().items() if one.made_from == "runs"),
            )
        made.ready(None if made.service else Path(config.save_path) / made.place)


def judge(
    source: str | Path,
    model: str | Path,
    *,
    backend: str,
    protocol: str = "auto",
    notes: str | Path = "",
    name: str | None = None,
    settings: Sequence[Any] = (),
    **options: Any,
) -> EvalResult:
    """Judge the answers of an aa_lcr run with a model; the same call again continues where it stopped.

    Args:
        source: the run folder, or a JSON file of answers.
        model: who judges, as `backend` understands it.
        protocol: v1.0, v1.1, or "auto" for the one that belongs to the answers' data.
        notes: v1.1: a file of grading notes.
        name: the folder of the verdicts; by default protocol, backend and model.
        settings, options: as `evaluate` has them, for the judge.

    Raises:
        InfiniEvalError: what is wrong, what would be valid, and what to do next.
    """
    known = _task_fields("aa_lcr_judge") | {"save_path": "", "eval_dataset_path": ""}
    known |= {"model_path": str(model), "backend": backend, "backend_settings": tuple(settings)}
    asked = registry.for_backend(_config(known, options))
    judge_answers(JudgeConfig(str(source), asked, protocol, str(notes), name))
    return analyze(source)


@dataclass(frozen=True)
class JudgeOutcome:
    """What a judge's work ends in: the report's text, the summary file, and the judge's one line."""

    text: str
    summary_file: str
    line: str


def judge_answers(config: JudgeConfig, *, timeout_s: float = 1800.0) -> JudgeOutcome | None:
    """Judge every answer that has no verdict of this judge yet, and write the report; None on ranks other than 0."""
    from infini_eval.tasks.aa_lcr.answers import read_generations
    from infini_eval.tasks.aa_lcr.judge import chosen_protocol

    source = Path(config.source)
    generations = read_generations(source)
    protocol, _ = chosen_protocol(generations, config.protocol)
    name = config.name or _slug(f"{protocol.name}-{config.judge.backend}-{config.judge.model_path}")
    options = {"protocol": protocol.name} | ({"notes": config.notes} if config.notes else {})
    evaluation = replace(
        config.judge,
        eval_dataset_path=str(source),
        save_path=str(generations.judges_folder / name),
        task_options=tuple(options.items()),
    )
    if any(one.status == "ok" and one.text.strip() for one in generations.items):
        from infini_eval.evaluation.run import evaluate as run_evaluation

        if not run_evaluation(evaluation, timeout_s=timeout_s).is_main:
            return None
    report = analyze_questions(source, failed_as_wrong=evaluation.failed_as_wrong)
    summary_file, *_ = report.write()
    return JudgeOutcome(report.text, str(summary_file), report.line_of(name))


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[-100:]


def compare(*runs: str | Path | EvalResult) -> Comparisons:
    """Compare runs on the same samples, each further run with the first: paired differences with intervals and p-values.

    Args:
        runs: two or more run folders, or results of `evaluate`; the first is the baseline.

    Raises:
        ConfigError, DataError: fewer than two runs, or runs that were not made on the same data.
    """
    return compare_runs([run.folder if isinstance(run, EvalResult) else run for run in runs])


def backend_and_name(model: str) -> tuple[str, str]:
    """Who answers, and what that backend is given, from "fake:any" or from what lies in a folder; ConfigError for neither."""
    backend, name = registry.backend_and_model(model)
    return backend or backend_of(Path(name)), name


def backend_of(path: Path) -> str:
    """The backend that reads what lies in a folder: nanotron or transformers; ConfigError where neither does."""
    if (path / "config.yaml").is_file() or (path / "latest.txt").is_file():
        return "nanotron"
    if (path / "config.json").is_file():
        return "transformers"
    raise ConfigError(
        f"model {str(path)!r} is no folder of a nanotron checkpoint or of a Hugging Face model",
        valid="a folder with config.yaml, latest.txt or config.json; for a hub id or a served model name the backend too: "
        "transformers:owner/name (or vllm, openai, gemini; fake:any needs no model)",
    )


def _settings_of(model: Any) -> dict[str, Any]:
    """The model settings that a NativeModel was loaded with; nothing for others."""
    from infini_eval.engine.native_model import NativeModel

    if not isinstance(model, NativeModel):
        return {}
    loaded = {field.name: getattr(model.settings, field.name) for field in fields(ModelSettings)}
    return loaded | {"device": str(model.resolved.device)}


def _task_fields(name: str) -> dict[str, Any]:
    """The fields of EvalConfig that a task decides where nothing else is said."""
    task = registry.task(name)
    return {"task": task.name, "scorer": task.scorers[0], "max_new_tokens": task.max_new_tokens}


def _config(known: dict[str, Any], options: Mapping[str, Any]) -> EvalConfig:
    """One EvalConfig from fields of it and of its parts; ConfigError for a name that none of them has."""
    rest = dict(options)
    parts: dict[str, Any] = {}
    for part, kind in _GROUPS:
        names = [field.name for field in fields(kind) if field.name in rest and field.name != "seed"]
        parts[part] = kind(**{name: rest.pop(name) for name in names})
    parts["sampling"] = replace(
        parts["sampling"], seed=rest.get("seed", EvalConfig.seed)
    )  # one seed, as on a command line
    own = {field.name for field in fields(EvalConfig)} - {part for part, _ in _GROUPS}
    unknown = [name for name in rest if name not in own]
    if unknown:
        valid = sorted(own | {field.name for _, kind in _GROUPS for field in fields(kind)})
        raise ConfigError(f"evaluate() has no option {unknown[0]!r}", valid=", ".join(valid))
    if isinstance(rest.get("task_options"), Mapping):
        rest["task_options"] = tuple((name, str(value)) for name, value in rest["task_options"].items())
    rest |= {"columns": _pairs(rest["columns"])} if "columns" in rest else {}
    if isinstance(rest.get("report_to"), str):
        rest["report_to"] = names_list(rest["report_to"])
    if rest.get("depths") is not None:
        rest["depths"] = tuple(float(depth) for depth in rest["depths"])
    return EvalConfig(**(known | rest | parts))


def _pairs(columns: str | Mapping[str, str] | Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """A mapping of columns as EvalConfig has it."""
    if not isinstance(columns, str):
        return tuple(columns.items() if isinstance(columns, Mapping) else columns)
    try:
        return column_pairs(columns)
    except argparse.ArgumentTypeError as error:
        raise ConfigError(f"columns={error}") from None


def _data_on_disk(data: Any, folder: Path) -> tuple[str, Callable[[], None] | None]:
    """A path of the data, and what writes them there first where they are no path: the run folder then holds its data."""
    if isinstance(data, str | Path):
        return str(data), None
    table = _table_of(data)
    digest = hashlib.sha256(repr(table.to_pydict()).encode()).hexdigest()[:12]
    file = folder.parent / f"{folder.name}-data" / f"{digest}.parquet"

    def write() -> None:
        import pyarrow.parquet as pq

        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            pq.write_table(table, file)

    return str(file), write


def _table_of(data: Any) -> Any:
    """Rows, a DataFrame or a datasets.Dataset as a pyarrow table."""
    import pyarrow as pa

    if hasattr(data, "to_arrow"):  # polars
        return data.to_arrow()
    if type(data).__module__.partition(".")[0] == "datasets":
        return data.with_format("arrow")[:]
    if type(data).__module__.partition(".")[0] == "pandas":
        return pa.Table.from_pandas(data, preserve_index=False)
    if isinstance(data, pa.Table):
        return data
    if isinstance(data, Sequence) and data and all(isinstance(row, Mapping) for row in data):
        from infini_eval.data.tables import table_of_rows

        return table_of_rows(data)
    raise DataError(
        f"data is a {type(data).__name__}" + (" without rows" if isinstance(data, Sequence) and not data else ""),
        valid="a path, a hub id, a datasets.Dataset, a pandas DataFrame, or a list of dictionaries",
    )
