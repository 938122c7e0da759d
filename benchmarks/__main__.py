"""`python -m benchmarks [NAME…]`: each benchmark in a fresh process; a table, then one JSON line.

Exit status 1 when a target is missed or an answer is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks._harness import ROOT, Metric, WrongAnswer, run_benchmark

# in the order of DESIGN's table, then what stands beside it
NAMES = (
    "stream_vs_recompute",
    "decode_flat",
    "prefill_linear",
    "last_layer",
    "memory_flat",
    "score_memory",
    "memory_overhead",
    "decode_batch",
    "prefix_reuse",
    "pp2_overlap",
    "tp2_manual",
    "dp_balance",
    "merge_memory",
    "datagen",
    "loads_per_run",
    "startup",
    "whole_run",
    "model_300m",
    "transformers_llama",
    "planned_memory",
    "coverage",
)
FLOORS = Path(__file__).parent / "floors.json"
HIDDEN = "--child"


def main(argv: list[str]) -> int:
    if argv[:1] == [HIDDEN]:
        return child(argv[1], toy="--toy" in argv)
    args = parser().parse_args(argv)
    if args.list:
        print("\n".join(f"{name:22}{first_line(name)}" for name in NAMES))
        return 0
    floors = json.loads(FLOORS.read_text()) if args.floors else None
    began, reports = time.monotonic(), []
    print(conditions(), flush=True)
    for name in args.names or NAMES:
        report = run_apart(name, args.toy)
        reports.append(report)
        show(report, floors, args.toy)
    missed = [name for report in reports for name in missing(report, floors)] if not args.toy else []
    missed += [report["benchmark"] for report in reports if report["error"]]
    summary = {
        "missed": missed,
        "seconds": round(time.monotonic() - began, 1),
        "conditions": conditions(),
        "toy": args.toy,
        "benchmarks": reports,
    }
    print(json.dumps(summary))
    return int(bool(missed))


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, allow_abbrev=False)
    made.add_argument(
        "names", nargs="*", choices=[[], *NAMES], metavar="NAME", help="which ones (default: all; see --list)"
    )
    made.add_argument("--list", action="store_true", help="what there is")
    made.add_argument("--toy", action="store_true", help="tiny sizes: shows that everything runs; no target is judged")
    made.add_argument(
        "--floors", action="store_true", help="judge by the committed floors.json instead of DESIGN's targets"
    )
    return made


def child(name: str, toy: bool) -> int:
    """Run one benchmark here; the last line is its report."""
    began = time.monotonic()
    try:
        metrics, error = [metric.to_json() for metric in run_benchmark(name, toy)], None
    except WrongAnswer as problem:
        metrics, error = [], f"wrong answer: {problem}"
    print(
        json.dumps(
            {"benchmark": name, "metrics": metrics, "error": error, "seconds": round(time.monotonic() - began, 1)}
        )
    )
    return 0


def run_apart(name: str, toy: bool) -> dict[str, Any]:
    """A benchmark's report, from a process of its own with one thread."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-m", "benchmarks", HIDDEN, name, *(["--toy"] if toy else [])]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        return {
            "benchmark": name,
            "metrics": [],
            "error": done.stderr[-3000:] or f"status {done.returncode}",
            "seconds": 0.0,
        }
    return json.loads(done.stdout.splitlines()[-1])


def missing(report: dict[str, Any], floors: dict[str, float] | None) -> list[str]:
    """Metrics that miss their target (or their floor)."""
    metrics = [Metric(**fields) for fields in report["metrics"]]
    return [metric.name for metric in metrics if not metric.met(bound(metric, floors))]


def bound(metric: Metric, floors: dict[str, float] | None) -> float | None:
    return metric.limit if floors is None else floors.get(metric.name)


def show(report: dict[str, Any], floors: dict[str, float] | None, toy: bool) -> None:
    if report["error"]:
        print(f"{report['benchmark']:32}FAILED  {report['error']}", flush=True)
    for metric in (Metric(**fields) for fields in report["metrics"]):
        limit = None if toy else bound(metric, floors)
        wanted = "" if limit is None else f"{metric.sense} {limit:g}"
        verdict = "" if limit is None else "ok" if metric.met(limit) else "MISSED"
        value = f"{metric.value:.4g} {metric.unit}"
        print(f"{metric.name:32}{value:>12}  {wanted:>10} {verdict:7}{metric.note}", flush=True)


def conditions() -> str:
    load = "/".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{cpu_name()}, {os.cpu_count()} CPUs, load {load}, Python {platform.python_version()}, one thread a process"


def cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def first_line(name: str) -> str:
    text = (Path(__file__).parent / f"{name}.py").read_text()
    return text.removeprefix('"""').split("\n", 1)[0].removesuffix('"""')


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
