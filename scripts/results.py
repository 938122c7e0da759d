"""The rows of README's result table: the commands behind each, and running them. Needs the package installed.

  python scripts/results.py                     the rows, each with its commands
  python scripts/results.py 1k-border 16k-border    runs these: data where they are not shipped, memory on, memory ablated

Ends with a line of the table for each row. Data lie in data/results/, runs in results/table/; finished ones are not repeated.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CHECKPOINT = "checkpoints/infini-demo"
SHIPPED = "examples/infinite-context-length/data"
ALL_DEPTHS = "--depths 0:100:5 --num_prompts 10"


@dataclass(frozen=True)
class Row:
    """One row. data: a shipped folder, or flags of `infini-eval generate`; `ablated` rows are also run without memory."""

    context: str
    lies: str
    data: str
    ablated: bool = True


ROWS = {
    "1k-inside": Row("1k", "inside a segment", f"{SHIPPED}/demo-1024-passkey-eval"),
    "1k-border": Row("1k", "on a segment border", f"{SHIPPED}/demo-1024-border-passkey-eval"),
    "1k-jitter": Row(
        *("1k", "anywhere (jittered phase)"),
        "--context_length 1024 --depths 0:100:5 --num_prompts 20 --segment-length 128 --question-phase jitter",
        ablated=False,
    ),
    "4k-border": Row("4k", "on a segment border", f"--context_length 4k {ALL_DEPTHS}"),
    "16k-inside": Row("16k", "inside a segment", f"{SHIPPED}/demo-16k-passkey-eval"),
    "16k-border": Row("16k", "on a segment border", f"{SHIPPED}/demo-16k-border-passkey-eval"),
    "128k-border": Row("128k", "on a segment border", "--context_length 128k --depths 0:100:25 --num_prompts 10"),
    "1m-border": Row(
        "1m", "on a segment border", "--context_length 1m --depths 10,50,90 --num_prompts 1", ablated=False
    ),
    "10m-border": Row(
        "10m", "on a segment border", "--context_length 10m --depths 30,70 --num_prompts 1", ablated=False
    ),
}


def commands(name: str) -> list[list[str]]:
    """What makes a row: generating its data where they are not shipped, one run with memory, one with it ablated."""
    row, data, made = ROWS[name], ROWS[name].data, []
    if data.startswith("--"):
        fixed = "--num_digits 4,5 --seed 1 --length-includes-answer no --id results --quiet"
        made.append(["generate", *data.split(), *fixed.split(), "--tokenizer", f"{CHECKPOINT}/tokenizer"])
        data = f"data/results/{name}"
        made[-1] += ["--save_path", data]
    for memory in ("on", "ablate") if row.ablated else ("on",):
        flags = ["--ckpt-path", CHECKPOINT, "--eval_dataset_path", data, "--save_path", str(run_folder(name, memory))]
        made.append(["passkey", *flags, "--memory", memory, "--quiet"])
    return made


def run_folder(name: str, memory: str) -> Path:
    return Path("results/table") / f"{name}-{memory}"


def run(name: str) -> None:
    """Run a row's commands; data that are there are not made again, and runs continue by themselves."""
    for command in commands(name):
        target = ROOT / command[command.index("--save_path") + 1]
        if command[0] == "generate" and target.is_dir():
            continue
        print(f"==> {shown(command)}", flush=True)
        done = subprocess.run([sys.executable, "-m", "infini_eval", *command], cwd=ROOT, stdout=subprocess.DEVNULL)
        if done.returncode:
            sys.exit(done.returncode)


def shown(command: list[str]) -> str:
    return shlex.join(["infini-eval", *command])


def line(name: str) -> str:
    """The row of the table, from the summaries."""
    row = ROWS[name]
    stats, total = _summary(name, "on")
    on = _share(stats["summary_stats"], "average_accuracy", ("average_ci_low", "average_ci_high"), total, bold=True)
    off = ""
    if row.ablated:
        cross = _summary(name, "ablate")[0]["segment_analysis"]
        ends = dict(zip(("low", "high"), cross["cross_segment_ci"], strict=True))
        off = " " + _share(cross | ends, "cross_segment_avg", ("low", "high"), cross["cross_segment_count"])
    return f"| {row.context} | {row.lies} | {on} |{off} |"


def _summary(name: str, memory: str) -> tuple[dict[str, Any], int]:
    summary = json.loads((ROOT / run_folder(name, memory) / "summary.json").read_text())
    return summary, summary["total_samples"]


def _share(found: dict[str, Any], average: str, ends: tuple[str, str], n: int, *, bold: bool = False) -> str:
    """As "99.0 % [96.6, 99.7], n = 210"; of few samples only their number."""
    percent = found[average]
    if n < 10:
        return f"{round(percent * n / 100)} of {n}"
    low, high = (_short(found[end]) for end in ends)
    stars = "**" if bold else ""
    return f"{stars}{_short(percent)} %{stars} [{low}, {high}], n = {n}"


def _short(percent: float) -> str:
    return f"{percent:.0f}" if percent in (0, 100) else f"{percent:.1f}"


def listing() -> Iterator[str]:
    for name, row in ROWS.items():
        yield f"{name}: {row.context}, {row.lies}"
        yield from (f"    {shown(command)}" for command in commands(name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    rows = parser.parse_args().rows
    if unknown := [name for name in rows if name not in ROWS]:
        parser.error(f"unknown row {unknown[0]!r}; there are {', '.join(ROWS)}")
    if not rows:
        print("\n".join(listing()))
        return
    for name in rows:
        run(name)
    print("\n".join(line(name) for name in rows))


if __name__ == "__main__":
    main()
