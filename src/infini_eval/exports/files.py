"""Results as files: every sample as csv or parquet, and the results and samples files of the lm-eval harness."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infini_eval._version import __version__
from infini_eval.api import registry
from infini_eval.api.export import export
from infini_eval.arrow import column
from infini_eval.errors import ConfigError
from infini_eval.exports._facts import RunFacts, facts_of, recorded, scorers_of, stderr
from infini_eval.foreign import as_number, as_whole
from infini_eval.options import MOST_COUNTED
from infini_eval.reports.model import AnalysedRun, QuestionSummary
from infini_eval.results.files import make_folder, os_error, to_jsonable, write_atomically, write_json

if TYPE_CHECKING:
    import pyarrow as pa

FILTER = "none"  # lm-eval's name for answers as they came


@export("csv", place="results.csv")
def csv(runs: Sequence[AnalysedRun], place: Path) -> list[str]:
    """csv: one row a sample with every recorded column, and the run that it is of"""
    import pyarrow.csv as pc

    _check_file(place)
    table = samples_of(runs)
    try:
        pc.write_csv(table, place)
    except OSError as error:
        raise os_error(place, error) from error
    return [_said(place, table.num_rows, runs)]


@export("parquet", place="results.parquet")
def parquet(runs: Sequence[AnalysedRun], place: Path) -> list[str]:
    """parquet: the same rows with their types"""
    import pyarrow.parquet as pq

    _check_file(place)
    table = samples_of(runs)
    try:
        pq.write_table(table, place, compression="zstd")
    except OSError as error:
        raise os_error(place, error) from error
    return [_said(place, table.num_rows, runs)]


def _check_file(place: Path) -> None:
    """Make the folder of a file to be."""
    if place.is_dir():
        raise ConfigError(f"--output {place} is a folder", valid="a file")
    make_folder(place.parent)


def _said(place: Path, rows: int, runs: Sequence[AnalysedRun]) -> str:
    return f"{place}: {rows:,} samples of {len(runs)} run(s)"


def samples_of(runs: Sequence[AnalysedRun]) -> pa.Table:
    """All samples of all runs: `run`, `run_model`, `run_task`, then every column that one of them has."""
    import pyarrow as pa

    tables = []
    for facts in facts_of(runs):
        table = recorded(facts.run.folder)
        names = {"run": facts.name, "run_model": facts.model, "run_task": facts.task}
        own = {name: column([text] * table.num_rows, pa.string()) for name, text in names.items()}
        rest = {name: table.column(name) for name in table.column_names if name not in own}
        tables.append(pa.table(own | rest))
    return pa.concat_tables(_alike(tables), promote_options="default")


def _alike(tables: list[pa.Table]) -> list[pa.Table]:
    """The tables with one type for each column: a number where all are numbers, else text."""
    import pyarrow as pa

    kinds: dict[str, set[Any]] = {}
    for table in tables:
        for field in table.schema:
            kinds.setdefault(field.name, set()).add(field.type)
    wider = {name: _common(types - {pa.null()}) for name, types in kinds.items() if len(types - {pa.null()}) > 1}
    return [
        table.cast(pa.schema([(field.name, wider.get(field.name, field.type)) for field in table.schema]))
        for table in tables
    ]


def _common(types: set[Any]) -> Any:
    import pyarrow as pa

    numeric = all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in types)
    return pa.float64() if numeric else pa.string()


@export("lm-eval", place="lm-eval-results")
def lm_eval(runs: Sequence[AnalysedRun], place: Path) -> list[str]:
    """lm-eval: the results and samples files of EleutherAI's lm-evaluation-harness, a folder a model

    A task and length is one entry (passkey_4096), with the mean of each scorer over its answered samples and that mean's
    standard error: the mean over samples, where our reports average over depths. Prompts are not recorded: a sample's
    arguments hold the text around the needle.
    """
    facts = facts_of(runs)
    models = [_plain_name(one.model) for one in facts]
    written = []
    for one, model in zip(facts, models):
        folder = place / (model if models.count(model) == 1 else f"{model}__{_plain_name(one.name)}")
        date = one.started.strftime("%Y-%m-%dT%H-%M-%S.%f")
        entries = _entries(one)
        write_json(folder / f"results_{date}.json", _results(one, entries))
        written.append(str(folder / f"results_{date}.json"))
        for name, rows in entries.items():
            lines = [json.dumps(to_jsonable(_sample(row, place)), ensure_ascii=False) for place, row in enumerate(rows)]
            write_atomically(folder / f"samples_{name}_{date}.jsonl", "".join(f"{line}\n" for line in lines).encode())
    return written


Rows = list[dict[str, Any]]


def _plain_name(name: str) -> str:
    """A name that is also a folder's."""
    return re.sub(r"[^\w.-]+", "_", name).strip("_.") or "model"


def _entries(facts: RunFacts) -> dict[str, Rows]:
    """The answered samples by lm-eval's task name: the task, and its length where there are several."""
    rows: Rows = [row for row in recorded(facts.run.folder).to_pylist() if row.get("status") != "failed"]
    lengths = sorted({row.get("context_length") for row in rows}, key=lambda length: length or 0)
    if len(lengths) < 2:
        return {facts.task: rows}
    return {
        facts.task if length is None else f"{facts.task}_{length:.0f}": [
            row for row in rows if row.get("context_length") == length
        ]
        for length in lengths
    }


def _results(facts: RunFacts, entries: Mapping[str, Rows]) -> dict[str, Any]:
    """The content of results_DATE.json."""
    identity, environment = (facts.manifest.get(name) or {} for name in ("identity", "environment"))
    model = facts.manifest.get("model") or {}
    metrics = {name: _metrics(facts, rows) for name, rows in entries.items()}
    several = [name for name in entries if name != facts.task]
    shots = {name: {row.get("num_shots") for row in rows} for name, rows in entries.items()}
    budget = identity.get("max_new_tokens")
    return {
        "results": {
            name: {"name": name, "alias": name, "sample_len": len(entries[name]), **found}
            for name, found in metrics.items()
        },
        "group_subtasks": {facts.task: several} if several else {facts.task: []},
        "configs": {
            name: {
                "task": name,
                "output_type": "generate_until",
                "metric_list": [
                    {"metric": one, "aggregation": "mean", "higher_is_better": True} for one in _names(found)
                ],
                "generation_kwargs": {"max_gen_toks": budget, **(identity.get("sampling") or {})},
                "metadata": {"version": 1, "infini_eval": __version__, "data": identity.get("data")},
            }
            for name, found in metrics.items()
        },
        "versions": dict.fromkeys(entries, 1),
        "n-shot": {
            name: as_whole(next(iter(found)), 0, MOST_COUNTED) or 0 if len(found) == 1 else 0
            for name, found in shots.items()
        },
        "higher_is_better": {name: dict.fromkeys(_names(found), True) for name, found in metrics.items()},
        "n-samples": {name: {"original": len(rows), "effective": len(rows)} for name, rows in entries.items()},
        "config": {
            "model": model.get("kind") or "unknown",
            "model_args": {"pretrained": environment.get("ckpt_path") or facts.model},
            "model_num_parameters": model.get("parameters"),
            "model_dtype": model.get("dtype"),
            "batch_size": None,
            "device": environment.get("device"),
            "limit": identity.get("num_samples"),
            "random_seed": identity.get("seed"),
        },
        "date": facts.started.timestamp(),
        "model_source": model.get("kind") or "unknown",
        "model_name": facts.model,
        "model_name_sanitized": _plain_name(facts.model),
        "total_evaluation_time_seconds": str(facts.wall_seconds),
    }


def _names(metrics: Mapping[str, Any]) -> list[str]:
    """The scorers among the keys "NAME,filter" and "NAME_stderr,filter"."""
    return [name for key in metrics if not (name := key.partition(",")[0]).endswith("_stderr")]


def _metrics(facts: RunFacts, rows: Rows) -> dict[str, float | None]:
    """Mean and standard error of each scorer, the one that counts first; a judged run's pass rate of each judge."""
    summary = facts.run.summary
    if isinstance(summary, QuestionSummary):
        found = {str(judge["name"]): judge["accuracy"] for judge in summary.judges if judge["accuracy"] is not None}
        return {f"pass@1,{name}": value / 100 for name, value in found.items()}
    metrics: dict[str, float | None] = {}
    for name in scorers_of(facts, rows):
        values = [score for row in rows if (score := as_number(row.get(name))) is not None]
        if values:
            metrics |= {f"{name},{FILTER}": sum(values) / len(values), f"{name}_stderr,{FILTER}": stderr(values)}
    return metrics


def _sample(row: Mapping[str, Any], number: int) -> dict[str, Any]:
    """One line of samples_TASK_DATE.jsonl."""
    known = set(registry.names("scorers"))
    scores = {name: row[name] for name in row if name in known and row[name] is not None}
    doc = {name: row.get(name) for name in ("id", "context_length", "depth_percent", "sample_key", "excerpt")}
    answer, text = str(row.get("answer")), row.get("generation_text") or ""
    return {
        "doc_id": number,
        "doc": doc,
        "target": answer,
        "arguments": {"gen_args_0": {"arg_0": row.get("excerpt") or "", "arg_1": {}}},
        "resps": [[text]],
        "filtered_resps": [text],
        "filter": FILTER,
        "metrics": list(scores),
        "doc_hash": hashlib.sha256(json.dumps(to_jsonable(doc), sort_keys=True).encode()).hexdigest(),
        "prompt_hash": row.get("prompt_sha256") or "",
        "target_hash": hashlib.sha256(answer.encode()).hexdigest(),
        **scores,
    }
