"""Results as logs of Inspect (inspect-ai), written by the log's published schema: `inspect view` and its readers open them."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, Literal

from infini_eval._version import __version__
from infini_eval.api import registry
from infini_eval.api.export import export
from infini_eval.errors import ConfigError, InfiniEvalError
from infini_eval.exports._facts import RunFacts, facts_of, recorded, scorers_of, stderr
from infini_eval.foreign import as_number, as_whole
from infini_eval.keys import hide_keys
from infini_eval.options import MOST_TOKENS, option
from infini_eval.records import Sample
from infini_eval.reports.model import AnalysedRun, QuestionSummary
from infini_eval.results.files import to_jsonable, write_atomically
from infini_eval.scorers.text_match import references

LOG_VERSION = 2  # of the schema: EvalLog.version
STOP_REASONS = {"stop": "stop", "settled": "stop", "length": "max_tokens"}
SHOWN_ELSEWHERE = ("id", "answer", "generation_text", "extracted", "seconds", "error")  # than among a sample's metadata

Row = Mapping[str, Any]


@dataclass(frozen=True)
class InspectSettings:
    """Where the prompts come from: a run's records hold none, its data do."""

    TITLE: ClassVar[str] = "the format inspect"

    prompts: Literal["data", "excerpt"] = option(
        "data",
        "data: whole prompts, read again from the run's data; excerpt: the text around the needle (default: %(default)s)",
        choices=("data", "excerpt"),
    )
    data: str | None = option(
        None, "where the run's data lie now (default: where the run found them)", flag="--data", metavar="DATA"
    )


@export("inspect", place="inspect-logs", settings=InspectSettings)
def inspect(runs: Sequence[AnalysedRun], place: Path, settings: InspectSettings) -> list[str]:
    """inspect: a log each for `inspect view`, with prompts, answers, scores and what is known of every sample

    The log's metrics are the mean over answered samples and its standard error; the report's accuracies (over depths) and
    their intervals are the metadata of its results. A prompt is taken from the data only where it is the recorded one, by
    its sha256; of others the log has the text around the needle. A run exported again replaces its log.
    """
    written = []
    for facts in facts_of(runs):
        rows = recorded(facts.run.folder).to_pylist()
        asked = _prompts(facts, settings) if settings.prompts == "data" else {}
        file = place / f"{_created(facts).replace(':', '-').replace('+', '-')}_{_plain(facts.task)}_{facts.key}.json"
        write_atomically(file, _log(facts, rows, asked))
        found = sum(row.get("prompt_sha256") in asked for row in rows)
        written.append(f"{file}: {len(rows):,} samples{_said_of_prompts(found, len(rows), settings)}")
    return [*written, f"see them with: inspect view --log-dir {place}"]


def _said_of_prompts(found: int, rows: int, settings: InspectSettings) -> str:
    if settings.prompts == "excerpt" or found == rows:
        return ""
    lacking = "none" if not found else f"{found:,}"
    return f", {lacking} with a prompt: the run's data were not found as they were (--data names their place)"


def _plain(name: str) -> str:
    """A name as a part of a log's file name: its parts are divided by underscores."""
    return "".join(c if c.isalnum() else "-" for c in name)


def _created(facts: RunFacts) -> str:
    return facts.started.isoformat(timespec="seconds")


def _prompts(facts: RunFacts, settings: InspectSettings) -> dict[str, Sample]:
    """The samples of the run's data by the sha256 of their prompts; none where the data cannot be read.

    Raises:
        ConfigError: data that the user named cannot be read.
    """
    from infini_eval.data.reading import load_data  # numpy, which --help does without

    identity = facts.manifest.get("identity") or {}
    place = settings.data or (facts.manifest.get("environment") or {}).get("eval_dataset_path")
    made = identity.get("data_settings") or {}
    if not isinstance(place, str) or not isinstance(made, Mapping):
        return {}
    try:
        task = registry.task(facts.task)
        options: dict[str, Any] = {"options": task.with_defaults({})} if task.options else {}
        if task.load is None:
            options |= {"columns": made.get("columns"), "split": made.get("split")}
        data = load_data(task, place.removeprefix("hub:"), **options)
    except InfiniEvalError as error:
        if settings.data is None:
            return {}
        raise ConfigError(f"--data {place} cannot be read: {error.problem}", valid=error.valid) from error
    return {sample.prompt_sha256: sample for sample in data.samples}


def _log(facts: RunFacts, rows: Sequence[Row], asked: Mapping[str, Sample]) -> Iterator[bytes]:
    """The log as JSON, part by part: prompts are long."""
    scorers = scorers_of(facts, rows)
    ids = [str(row.get("id") or row.get("sample_key") or number) for number, row in enumerate(rows)]
    head = {
        "version": LOG_VERSION,
        "status": "success" if _complete(facts, rows) else "cancelled",
        "eval": _spec(facts, rows, ids, scorers),
        "plan": {"name": "plan", "steps": [{"solver": "generate", "params": {}}], "config": _generation(facts)},
        "results": _results(facts, rows, scorers),
        "stats": _stats(facts, rows),
    }
    yield _json(head)[:-1] + b',\n"samples": ['
    seen: Counter[str] = Counter()
    for number, (name, row) in enumerate(zip(ids, rows)):
        seen[name] += 1  # an id that comes again is another epoch of the same sample
        sample = _sample(facts.model, name, seen[name], row, scorers, asked.get(str(row.get("prompt_sha256"))))
        yield (b",\n" if number else b"\n") + _json(sample)
    yield b"\n]}\n"


def _json(data: Mapping[str, Any]) -> bytes:
    return hide_keys(json.dumps(to_jsonable(data), ensure_ascii=False, allow_nan=False)).encode()


def _complete(facts: RunFacts, rows: Sequence[Row]) -> bool:
    planned = facts.manifest.get("samples_planned")
    return not isinstance(planned, int) or len(rows) >= planned


def _spec(facts: RunFacts, rows: Sequence[Row], ids: list[str], scorers: Sequence[str]) -> dict[str, Any]:
    """What was asked of whom (EvalSpec)."""
    identity, model, environment = (facts.manifest.get(name) or {} for name in ("identity", "model", "environment"))
    means = [{"name": "mean"}, {"name": "stderr"}]
    return {
        "eval_id": facts.key,
        "run_id": facts.key,
        "task_id": facts.key,
        "created": _created(facts),
        "task": facts.task,
        "task_display_name": facts.name,
        "task_args": {name: value for name, value in (identity.get("filters") or {}).items() if value is not None},
        "tags": [facts.name] + [f"memory {model['memory']}"] * bool(model.get("memory")),
        "dataset": {
            "name": facts.task,
            "location": environment.get("eval_dataset_path"),
            "samples": len(set(ids)),
            "sample_ids": list(dict.fromkeys(ids)),
            "shuffled": False,
        },
        "model": facts.model,
        "model_generate_config": _generation(facts),
        "model_args": {"path": environment.get("ckpt_path"), **_short(model)},
        "config": {"epochs": max(Counter(ids).values(), default=1)},
        "packages": {"infini_eval": (environment.get("versions") or {}).get("infini_eval", __version__)},
        "metadata": facts.settings(),
        "scorers": [{"name": name, "metrics": means} for name in scorers],
    }


def _short(model: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of the model that are single values: gates are tables."""
    return {name: value for name, value in model.items() if value is not None and not isinstance(value, Mapping | list)}


def _generation(facts: RunFacts) -> dict[str, Any]:
    """How answers were drawn (GenerateConfig)."""
    identity = facts.manifest.get("identity") or {}
    sampling = identity.get("sampling") or {}
    chosen = {
        "max_tokens": identity.get("max_new_tokens"),
        "temperature": sampling.get("temperature"),
        "top_p": sampling.get("top_p"),
        "top_k": sampling.get("top_k") or None,  # ours is 0 where all are kept
        "seed": sampling.get("seed"),
    }
    return {name: value for name, value in chosen.items() if value is not None}


def _results(facts: RunFacts, rows: Sequence[Row], scorers: Sequence[str]) -> dict[str, Any]:
    """The metrics (EvalResults), the scorer that counts first; of a judged run the pass rate of each judge."""
    summary = facts.run.summary
    if isinstance(summary, QuestionSummary):
        judged = {str(one["name"]): one["accuracy"] for one in summary.judges if one["accuracy"] is not None}
        scores = [_score(name, {"accuracy": value / 100}) for name, value in judged.items()]
    else:
        scores = [_score(name, means) for name in scorers if (means := _means(rows, name))]
    return {
        "total_samples": len(rows),
        "completed_samples": sum(row.get("status") != "failed" for row in rows),
        "scores": scores,
        "metadata": {point.name: point.value for point in facts.points() if point.step is None},
    }


def _score(name: str, metrics: Mapping[str, float]) -> dict[str, Any]:
    return {
        "name": name,
        "scorer": name,
        "metrics": {metric: {"name": metric, "value": value} for metric, value in metrics.items()},
    }


def _means(rows: Sequence[Row], scorer: str) -> dict[str, float]:
    """Mean and standard error of a scorer over the answered samples, and the mean at each length where there are several."""
    values = [(row.get("context_length"), as_number(row.get(scorer))) for row in rows if row.get("status") != "failed"]
    scored = [(length, value) for length, value in values if value is not None]
    if not scored:
        return {}
    every = [value for _, value in scored]
    error = stderr(every)
    found = {"mean": sum(every) / len(every)} | ({} if error is None else {"stderr": error})
    by_length: dict[float, list[float]] = {}
    for length, value in scored:
        if length is not None:
            by_length.setdefault(length, []).append(value)
    if len(by_length) > 1:
        found |= {f"mean_{length:.0f}": sum(at) / len(at) for length, at in sorted(by_length.items())}
    return found


def _stats(facts: RunFacts, rows: Sequence[Row]) -> dict[str, Any]:
    """When it ran, and the tokens in all (EvalStats)."""
    usages = [_usage(row) for row in rows]
    total = {
        name: sum(usage.get(name, 0) for usage in usages) for name in sorted({key for one in usages for key in one})
    }
    ended = facts.started + timedelta(seconds=facts.wall_seconds)
    times = {"started_at": _created(facts), "completed_at": ended.isoformat(timespec="seconds")}
    return {**times, "model_usage": {facts.model: total}}


def _usage(row: Row) -> dict[str, int]:
    """Tokens (ModelUsage); those computed for another sample are read from a cache, and are no input tokens there."""
    counted = ("prompt_tokens", "generation_tokens", "reused_tokens")
    read, wrote, reused = (as_whole(row.get(name), 0, MOST_TOKENS) or 0 for name in counted)
    usage = {"input_tokens": read - reused, "output_tokens": wrote, "total_tokens": read + wrote}
    return usage | ({"input_tokens_cache_read": reused} if row.get("reused_tokens") is not None else {})


def _sample(
    model: str, name: str, epoch: int, row: Row, scorers: Sequence[str], asked: Sample | None
) -> dict[str, Any]:
    """One sample (EvalSample): the prompt from the data, else the text around the needle."""
    prompt = str(row.get("excerpt") or "") if asked is None else asked.prompt
    turns = asked.messages if asked is not None and asked.turns else [{"role": "user", "content": prompt}]
    reply = {"role": "assistant", "content": row.get("generation_text") or "", "source": "generate", "model": model}
    failed = row.get("status") == "failed"
    seconds = as_number(row.get("seconds"))
    stopped = STOP_REASONS.get(str(row.get("finish_reason")), "unknown")
    output = {"model": model, "choices": [{"message": reply, "stop_reason": stopped}], "usage": _usage(row)}
    output |= {"completion": reply["content"]} | ({} if seconds is None else {"time": seconds})
    sample: dict[str, Any] = {
        "id": name,
        "epoch": epoch,
        "input": turns if len(turns) > 1 else prompt,
        "target": list(references(Sample(name, prompt, str(row.get("answer") or ""), math.nan, columns=row))),
        "messages": [*turns, *([] if failed else [reply])],
        "output": {"model": model, "choices": []} if failed else output,
        "scores": {} if failed else _scores(row, scorers),
        "metadata": _metadata(row, scorers) | ({} if asked is not None else {"input_is": "the text around the needle"}),
        "model_usage": {model: _usage(row)},
    }
    if seconds is not None:
        sample |= {"total_time": seconds, "working_time": seconds}
    if failed:
        sample["error"] = {"message": str(row.get("error") or "failed"), "traceback": "", "traceback_ansi": ""}
    return sample


def _scores(row: Row, scorers: Sequence[str]) -> dict[str, Any]:
    """Each scorer's score; what was read as the answer stands with the one that counts."""
    values = {name: as_number(row.get(name)) for name in scorers}
    read = {scorers[0]: row.get("extracted")}
    return {
        name: {"value": value, **({"answer": str(read[name])} if read.get(name) is not None else {})}
        for name, value in values.items()
        if value is not None
    }


def _metadata(row: Row, scorers: Sequence[str]) -> dict[str, Any]:
    known = {*SHOWN_ELSEWHERE, *scorers}
    return {name: value for name, value in row.items() if name not in known and value is not None}
