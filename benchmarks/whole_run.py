"""Whole runs of run_passkey_eval.py on the shipped checkpoint, over one and two replicas: the same records, and the rate."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks._harness import DEMO, ROOT, Metric, children_cpu, gate, temporary_folder

USES_TORCH = False
EXAMPLE = ROOT / "examples" / "infinite-context-length"
DEPTHS = "0:100:10"
SMALL = 1  # samples a cell of the run that is subtracted, so that start-up and loading drop out


def run(toy: bool) -> list[Metric]:
    data = EXAMPLE / "data" / ("demo-1024-passkey-eval" if toy else "demo-16k-passkey-eval")
    large = SMALL if toy else 3
    with temporary_folder() as folder:
        sizes = {samples: evaluate(folder / f"1-{samples}", data, samples, 1) for samples in (SMALL, large)}
        two = evaluate(folder / "2", data, large, 2)
    one = sizes[large]
    gate(one["answers"] == two["answers"], "one and two replicas give different records")
    gate(len(one["answers"]) > 0, "nothing was answered")
    few, many = len(sizes[SMALL]["answers"]), len(one["answers"])
    rate = (many - few) / max(1e-3, one["cpu"] - sizes[SMALL]["cpu"])
    startup = sizes[SMALL]["cpu"] - few / rate if many > few else sizes[SMALL]["cpu"]
    walls = f"wall {two['wall']:.1f} / {one['wall']:.1f} s; needs free cores"
    return [
        Metric("run_samples_a_second", rate, "1/s", note=f"{data.name}, in CPU time, start-up and loading apart"),
        Metric("run_startup", startup, "s", "<=", note="CPU before the first sample and after the last"),
        Metric("run_dp2_cpu", two["cpu"] / one["cpu"], "x", "<=", note=f"CPU of two replicas / one, {many} samples"),
        Metric("run_dp2_wall", two["wall"] / one["wall"], "x", "<=", note=walls),
    ]


def evaluate(folder: Path, data: Path, samples: int, dp: int) -> dict:
    """Answers by sample, CPU and wall seconds of one command."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={dp}"] if dp > 1 else []
    script = str(EXAMPLE / "scripts" / "run_passkey_eval.py")
    paths = ["--ckpt-path", str(DEMO), "--save_path", str(folder), "--eval_dataset_path", str(data)]
    flags = f"--num_samples {samples} --depths {DEPTHS} --dp {dp} --quiet"
    command = [sys.executable, *torchrun, script, *paths, *flags.split()]
    cpu, wall = children_cpu(), time.perf_counter()
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    gate(done.returncode == 0, f"{command} ended with {done.returncode}: {done.stderr[-2000:]}")
    lines = [line for file in sorted((folder / "samples").glob("*.jsonl")) for line in file.read_text().splitlines()]
    records = [json.loads(line) for line in lines]
    answers = sorted((record["sample_key"], record["generation_text"]) for record in records)
    return {"answers": answers, "cpu": children_cpu() - cpu, "wall": time.perf_counter() - wall}
