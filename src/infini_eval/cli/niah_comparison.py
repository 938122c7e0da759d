"""Needle tests of one or several models at sizes in characters: data, plan, one process a model, one JSON a size."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infini_eval.api import registry
from infini_eval.cli import isolated
from infini_eval.cli.niah_data import NiahData
from infini_eval.config import EvalConfig, LoadSettings, ModelSettings, Sampling, Topology
from infini_eval.distributed.device_memory import host_available_bytes
from infini_eval.distributed.progress import Countdown
from infini_eval.errors import InfiniEvalError
from infini_eval.planning.architecture import Architecture
from infini_eval.planning.devices import CATALOGUE, Device, find_gpus
from infini_eval.planning.hf_config import read_architecture
from infini_eval.planning.memory import Settings
from infini_eval.planning.nearest import nearest_settings
from infini_eval.planning.plan import make_plan
from infini_eval.planning.text import gigabytes
from infini_eval.results.manifest import read_manifest
from infini_eval.results.samples import iter_samples

PROGRESSION = (10_000, 100_000, 1_000_000, 8_000_000)
EVERY_S = 10.0  # between two lines about progress and memory
PLANNED_BACKENDS = ("transformers", "nanotron")
BY_HUB_NAME = {"llama-4-scout": "llama-4-scout", "llama-3.1-8b": "llama-3.1-8b", "llama-3.1-70b": "llama-3.1-70b"}
QUANTIZATIONS: dict[str | None, str] = {"4bit": "bnb-4bit", "8bit": "bnb-8bit"}


@dataclass(frozen=True)
class Contender:
    """A model that is asked: backend, name or folder, and the settings that belong to it; `tp` shards, a process each."""

    backend: str
    model: str
    weights: ModelSettings = ModelSettings()
    settings: tuple[Any, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)  # keys; never printed, never written
    tp: int | None = None

    @property
    def label(self) -> str:
        return f"{self.backend}-{Path(self.model).name or self.model}"


@dataclass(frozen=True)
class NeedleComparison:
    """What is compared: where results go, `test_mode` (load and tokenise only), `plan` (skip what cannot fit).

    overwrite: ask again where an answer lies already.
    """

    contenders: Sequence[Contender]
    char_counts: Sequence[int]
    data: NiahData
    folder: Path
    test_mode: bool = False
    plan: bool = True
    max_new_tokens: int = 128
    sampling: Sampling = Sampling(seed=EvalConfig.seed)
    overwrite: bool = False


def compare(comparison: NeedleComparison) -> list[dict[str, Any]]:
    """Run every model at every size, the smallest first; a model is not asked beyond a size that the plan refuses."""
    reports, refused = [], set[str]()
    shown = _Shown(comparison)
    with shown.countdown:
        for characters in sorted(comparison.char_counts):
            shown.next(f"making the prompt of {characters:,}")
            path, context = comparison.data.make(characters, comparison.folder / "data")
            entries = []
            for contender in comparison.contenders:
                if contender.label in refused:
                    shown.countdown.add(characters)
                    continue
                watch = shown.next(f"{contender.label} at {characters:,}")
                entry = _ask(comparison, contender, path, context, characters, watch)
                entry["watched_memory"] = watch.peaks()
                shown.countdown.add(characters)
                entries.append(entry)
                _say(entry)
                if entry["status"] == "does not fit":
                    refused.add(contender.label)
            reports.append(_report(comparison, characters, context, entries))
            if len(refused) == len(comparison.contenders):
                print("every model is beyond what its plan allows: stopping here")
                break
    return reports


class _Shown:
    """What stands on the terminal while models are compared: how far, how long still, who is asked, and the memory."""

    def __init__(self, comparison: NeedleComparison) -> None:
        self._label, self._watch = "", isolated.ProcessWatch()
        self.countdown = Countdown(
            "comparing",
            sum(comparison.char_counts) * len(comparison.contenders),
            "characters",
            say=lambda line: print(line, file=sys.stderr, flush=True),
            every_s=EVERY_S,
            more=self._words,
        )

    def next(self, label: str) -> isolated.ProcessWatch:
        """Begin with something; the watch for its process."""
        self._label, self._watch = label, isolated.ProcessWatch()
        return self._watch

    def _words(self) -> str:
        return "; ".join(part for part in (self._label, self._watch.said, self._watch.words()) if part)


def _report(
    comparison: NeedleComparison, characters: int, context: int, entries: list[dict[str, Any]]
) -> dict[str, Any]:
    now = datetime.now(UTC)
    data = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(comparison.data).items()}
    report = {
        "timestamp": now.isoformat(timespec="seconds"),
        "test_mode": comparison.test_mode,
        "char_count": characters,
        "context_tokens": context,
        "data": data,
        "models": entries,
    }
    name = f"comparison_{characters}_{now:%Y%m%dT%H%M%S}.json"
    (comparison.folder / name).write_text(json.dumps(report, indent=2) + "\n")
    return report


def _ask(
    comparison: NeedleComparison,
    contender: Contender,
    data: Path,
    context: int,
    characters: int,
    watch: isolated.ProcessWatch,
) -> dict[str, Any]:
    """One model at one size, in a process of its own, so that its memory is free afterwards whatever happens."""
    entry: dict[str, Any] = {"label": contender.label, "backend": contender.backend, "model": contender.model}
    entry |= {"char_count": characters, "context_tokens": context, "status": "ok", "success": None}
    folder = comparison.folder / "runs" / f"{contender.label}-{characters}"
    config = _config(comparison, contender, data, folder)
    planned = plan_here(config, context + comparison.max_new_tokens)
    entry["plan"] = planned
    if comparison.plan and planned is not None and not planned["fits"]:
        return entry | {"status": "does not fit", "phase": "planning", "error_type": "does not fit"}
    what = "load_only" if comparison.test_mode else "evaluate"
    began = time.perf_counter()
    processes, keys = contender.tp or 1, contender.environment
    made = isolated.call(what, config, processes=processes, environment=keys, quiet=True, watch=watch)
    entry["seconds"] = round(time.perf_counter() - began, 3)
    if made.error is not None:
        kind = made.error_type or "the process ended"
        return entry | {"status": "failed", "error": made.error, "phase": made.phase, "error_type": kind}
    return entry | ({"loading": made.value} if comparison.test_mode else _answered(folder))


def _config(comparison: NeedleComparison, contender: Contender, data: Path, folder: Path) -> EvalConfig:
    task = registry.task("niah")
    config = EvalConfig(
        model_path=contender.model,
        save_path=str(folder),
        eval_dataset_path=str(data),
        task=task.name,
        backend=contender.backend,
        scorer=task.scorers[0],
        max_new_tokens=comparison.max_new_tokens,
        plan=comparison.plan,
        overwrite=comparison.overwrite or not _has_answers(folder),  # settings without answers are nobody's loss
        progress_every=EVERY_S / 2,
        model=contender.weights,
        topology=Topology(tp=contender.tp),
        sampling=comparison.sampling,
        backend_settings=contender.settings,
    )
    return registry.for_backend(config)


def _has_answers(folder: Path) -> bool:
    return any(line.record is not None and line.record["status"] == "ok" for line in iter_samples(folder))


def _answered(folder: Path) -> dict[str, Any]:
    """What the run folder says: success, reply, time, tokens a second, memory."""
    manifest = read_manifest(folder)
    rows = [line.record for line in iter_samples(folder) if line.record is not None]
    if not rows:
        return {"status": "failed", "error": f"{folder} holds no answer", "run_folder": str(folder)}
    row = rows[-1]
    failed = row["status"] != "ok"
    tokens, seconds = row["prompt_tokens"] + row["generation_tokens"], row["seconds"]
    return {
        "status": "failed" if failed else "ok",
        "success": None if failed else bool(row["correct"]),
        "error": row["error"],
        "phase": "answering",
        "error_type": _error_type(row["error"]) if failed else None,
        "reply": row["generation_text"],
        "expected": row["answer"],
        "prompt_tokens": row["prompt_tokens"],
        "answer_seconds": seconds,
        "tokens_per_second": round(tokens / seconds, 1) if seconds else None,
        "memory": manifest.environment.get("memory"),
        "run_folder": str(folder),
    }


def _error_type(error: str | None) -> str:
    """The kind of an error that a sample's record names."""
    return "OutOfMemory" if "out of memory" in (error or "").lower() else "failed answer"


def _say(entry: dict[str, Any]) -> None:
    head = f"{entry['label']}  {entry['char_count']:,} characters ({entry['context_tokens']:,} tokens): "
    if entry["status"] == "does not fit":
        plan = entry["plan"]
        words = f"does not fit: {plan['need_gb']:.1f} GB a device, {plan['capacity_gb']:.1f} GB there; {plan['advice']}"
    elif entry["status"] == "failed":
        words = f"failed: {entry['error']}"
    elif "loading" in entry:
        loading = entry["loading"]
        words = f"loaded in {loading['load_seconds']:.1f} s, tokenised in {loading['tokenise_seconds']:.1f} s"
        if loading["model"]["kind"] == "served":
            words = f"the server was reached in {loading['load_seconds']:.1f} s; its memory is not known here"
        elif loading["loaded_bytes"]:
            words += f", {loading['loaded_bytes'] / 1e9:.2f} GB of weights, peak {loading['peak_bytes'] / 1e9:.2f} GB"
    else:
        verdict = "needle found" if entry["success"] else "needle NOT found"
        measured = (entry["memory"] or {}).get("measured_bytes")
        memory = f", {gigabytes(measured)} of memory" if measured else ""
        words = f"{verdict} in {entry['answer_seconds']:.1f} s{memory}; reply: {entry['reply'][:200]!r}"
    print(head + words)


def devices_here() -> tuple[int, Device]:
    """How many devices there are, and the smallest of them; the host's memory where there are no GPUs."""
    gpus = [gpu for gpu in find_gpus() or [] if gpu.total_mib]
    if not gpus:
        return 1, Device("cpu", "cpu", host_available_bytes())
    smallest = min(gpus, key=lambda gpu: gpu.total_mib)
    sheet = next((device for name, device in CATALOGUE.items() if name.split("-")[0] in smallest.name), None)
    speed = (sheet.flops, sheet.bandwidth) if sheet else (None, None)
    return len(gpus), Device(smallest.name, "cuda", (smallest.total_mib - smallest.used_mib) * 2**20, *speed)


def plan_here(config: EvalConfig, context: int) -> dict[str, Any] | None:
    """Whether one replica fits on this machine's devices; None where the backend computes elsewhere or nothing is known.

    With offloading to host or disk, what does not fit is slow, not impossible. `context` in tokens, answer included.
    """
    architecture = _architecture(config.backend, config.model_path)
    if architecture is None:
        return None
    count, device = devices_here()
    loading = config.settings(LoadSettings)
    settings = Settings(dtype=config.model.dtype, quantization=QUANTIZATIONS.get(loading.quantization, "none"))
    layers = len(architecture.layers)
    asked = Topology(dp=1, tp=1, pp=count) if count <= layers and config.topology.tp is None else None
    (planned,) = make_plan(architecture, [context], device, count, asked=asked, settings=settings).contexts
    rank = planned.busiest
    advice = [] if planned.fits else nearest_settings(architecture, context, device, planned.mesh, settings, "run")
    return {
        "fits": planned.fits or bool(loading.offload_folder or loading.max_memory),
        "fits_without_offloading": planned.fits,
        "devices": f"{count} x {device.name}",
        "need_gb": rank.total / 1e9,
        "capacity_gb": device.capacity / 1e9,
        "weights_gb": rank.weights / 1e9,
        "kv_cache_gb": rank.state.total / 1e9,
        "longest_context": planned.longest,
        "advice": "; or ".join(advice[:3]) or (None if planned.fits else "no single setting makes it fit"),
    }


def _architecture(backend: str, model: str) -> Architecture | None:
    if backend not in PLANNED_BACKENDS:
        return None
    preset = next((preset for name, preset in BY_HUB_NAME.items() if name in model.lower()), None)
    try:
        return read_architecture(model)
    except InfiniEvalError:
        return read_architecture(preset) if preset else None
