"""Needle tests of one or several models at sizes in characters: data, plan, one process a model, one JSON a size."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infini_eval.cli.niah_data import NiahData
from infini_eval.planning.machine import plan_here

PROGRESSION = (10_000, 100_000, 1_000_000, 8_000_000)


@dataclass(frozen=True)
class Contender:
    """A model that is asked: backend, name or folder, and the flags of `infini-eval run` that belong to it."""

    backend: str
    model: str
    flags: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)  # keys; never printed, never written
    processes: int = 1

    @property
    def label(self) -> str:
        return f"{self.backend}-{Path(self.model).name or self.model}"


@dataclass(frozen=True)
class Comparison:
    """What is compared: where results go, `test_mode` (load and tokenise only), `plan` (skip what cannot fit)."""

    contenders: Sequence[Contender]
    char_counts: Sequence[int]
    data: NiahData
    folder: Path
    test_mode: bool = False
    plan: bool = True
    max_new_tokens: int = 128


def compare(comparison: Comparison) -> list[dict[str, Any]]:
    """Run every model at every size, the smallest first; a model is not asked beyond a size that the plan refuses."""
    reports, refused = [], set[str]()
    for characters in sorted(comparison.char_counts):
        path, context = comparison.data.make(characters, comparison.folder / "data")
        entries = []
        for contender in comparison.contenders:
            if contender.label in refused:
                continue
            entry = _ask(comparison, contender, path, context, characters)
            entries.append(entry)
            _say(entry)
            if entry["status"] == "does not fit":
                refused.add(contender.label)
        report = _report(comparison, characters, context, entries)
        reports.append(report)
        if len(refused) == len(comparison.contenders):
            print("every model is beyond what its plan allows: stopping here")
            break
    return reports


def _report(comparison: Comparison, characters: int, context: int, entries: list[dict[str, Any]]) -> dict[str, Any]:
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


def _ask(comparison: Comparison, contender: Contender, data: Path, context: int, characters: int) -> dict[str, Any]:
    """One model at one size, in a process of its own, so that its memory is free afterwards whatever happens."""
    entry: dict[str, Any] = {"label": contender.label, "backend": contender.backend, "model": contender.model}
    entry |= {"char_count": characters, "context_tokens": context, "status": "ok", "success": None}
    planned = plan_here(contender.backend, contender.model, context + comparison.max_new_tokens, contender.flags)
    entry["plan"] = planned
    if comparison.plan and planned is not None and not planned["fits"]:
        return entry | {"status": "does not fit"}
    folder = comparison.folder / "runs" / f"{contender.label}-{characters}"
    verb = "load" if comparison.test_mode else "run"
    given = [
        "--task",
        "niah",
        "--backend",
        contender.backend,
        "--model",
        contender.model,
        "--eval_dataset_path",
        str(data),
    ]
    given += ["--save_path", str(folder), "--max-new-tokens", str(comparison.max_new_tokens), *contender.flags]
    if not comparison.plan:
        given.append("--no-plan")
    began = time.perf_counter()
    done = _process([verb, *given], contender)
    entry["seconds"] = round(time.perf_counter() - began, 3)
    if done.returncode:
        return entry | {"status": "failed", "error": _reason(done.stderr)}
    return entry | (_loaded(done.stdout) if comparison.test_mode else _answered(folder))


def _process(arguments: list[str], contender: Contender) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable]
    if contender.processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={contender.processes}"]
    environment = {**os.environ, **contender.environment}
    command = [*launcher, "-m", "infini_eval", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def _reason(stderr: str) -> str:
    """Our own message where there is one, else the last line of a traceback."""
    begin = stderr.rfind("error: ") if "Traceback" not in stderr else -1
    lines = [line for line in stderr.splitlines() if line.strip()]
    return stderr[begin + len("error: ") :].strip() if begin >= 0 else (lines[-1] if lines else "no message")


def _loaded(output: str) -> dict[str, Any]:
    lines = [line for line in output.splitlines() if line.startswith("{")]
    return {"loading": json.loads(lines[-1])} if lines else {"status": "failed", "error": output[-2000:]}


def _answered(folder: Path) -> dict[str, Any]:
    """What the run folder says: success, reply, time, tokens a second, memory."""
    manifest = json.loads((folder / "manifest.json").read_text())
    rows = [json.loads(line) for path in sorted((folder / "samples").glob("*.jsonl")) for line in path.open()]
    row = rows[-1]
    failed = row["status"] != "ok"
    tokens, seconds = row["prompt_tokens"] + row["generation_tokens"], row["seconds"]
    return {
        "status": "failed" if failed else "ok",
        "success": None if failed else bool(row["correct"]),
        "error": row["error"],
        "reply": row["generation_text"],
        "expected": row["answer"],
        "prompt_tokens": row["prompt_tokens"],
        "answer_seconds": seconds,
        "tokens_per_second": round(tokens / seconds, 1) if seconds else None,
        "memory": manifest["environment"].get("memory"),
        "run_folder": str(folder),
    }


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
        words = f"{verdict} in {entry['answer_seconds']:.1f} s; reply: {entry['reply'][:200]!r}"
    print(head + words)
