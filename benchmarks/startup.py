"""How long the commands take before they do anything: help and a usage error, in CPU time of fresh processes."""

from __future__ import annotations

import subprocess
import sys

from benchmarks._harness import ROOT, Metric, children_cpu, fastest, gate, interleaved

USES_TORCH = False
HELP_LIMIT_S = 0.3
COMMANDS = {
    "python": ["-c", "pass"],
    "infini_eval_help": ["-m", "infini_eval", "--help"],
    "passkey_help": ["-m", "infini_eval", "passkey", "--help"],
    "analyze_help": ["-m", "infini_eval", "analyze", "--help"],
    "run_passkey_eval_help": ["examples/infinite-context-length/scripts/run_passkey_eval.py", "--help"],
    "generate_data_help": ["examples/infinite-context-length/generate_data.py", "--help"],
    "import_torch": ["-c", "import torch"],
}


def run(toy: bool) -> list[Metric]:
    names = list(COMMANDS)[:3] if toy else list(COMMANDS)
    contenders = {name: lambda command=COMMANDS[name]: start(command) for name in names}
    seconds = fastest(interleaved(contenders, 1 if toy else 5, clock=children_cpu))
    helps = [name for name in names if name.endswith("_help")]
    slowest = max(helps, key=lambda name: seconds[name])
    note = ", ".join(f"{name} {seconds[name]:.2f}" for name in names)
    bare = Metric("startup_vs_python", seconds[slowest] / seconds["python"], "x", "<=", None, "the same / bare python")
    return [Metric("startup_help", seconds[slowest], "s", "<=", None if toy else HELP_LIMIT_S, note), bare]


def start(command: list[str]) -> None:
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    gate(done.returncode == 0, f"{command} ended with {done.returncode}: {done.stderr[-1000:]}")
