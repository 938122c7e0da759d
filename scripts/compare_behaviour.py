"""Compare what two states of the repository answer: the same commands in both, then their run folders, data and exit statuses.

  python scripts/compare_behaviour.py REVISION [--keep DIR]

REVISION is checked out into a folder of its own; the working tree is the other side. Records may have gained columns and
differ in times; summaries may have gained keys. Everything else that differs is printed, with exit status 1.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DATA = "examples/infinite-context-length/data/demo-1024-passkey-eval"
PASSKEY = ("passkey", "--ckpt-path", "checkpoints/infini-demo", "--eval_dataset_path", DATA, "--device", "cpu")
RUN = ("run", "--task", "passkey", "--eval_dataset_path", DATA, "--depths", "0,50,100", "--num_samples", "2")
FEW = ("--depths", "0,50,100", "--num_samples", "2")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "infini_eval")
PLAIN = ("-m", "infini_eval")
# name -> how python is started, and the words of the command; OUT is the side's folder for results
COMMANDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "native": (PLAIN, (*PASSKEY, *FEW, "--save_path", "OUT/native", "--results_file", "OUT/native.json")),
    "native ablated": (PLAIN, (*PASSKEY, *FEW, "--memory", "ablate", "--save_path", "OUT/ablated")),
    "native dp 2": (TORCHRUN, (*PASSKEY, *FEW, "--dp", "2", "--save_path", "OUT/dp2")),
    "native tp 2": (TORCHRUN, (*PASSKEY, *FEW, "--tp", "2", "--save_path", "OUT/tp2")),
    "native pp 2": (TORCHRUN, (*PASSKEY, *FEW, "--pp", "2", "--save_path", "OUT/pp2")),
    "transformers": (
        PLAIN,
        (
            *RUN,
            "--backend",
            "transformers",
            "--model",
            "checkpoints/llama-demo",
            "--device",
            "cpu",
            "--save_path",
            "OUT/hf",
        ),
    ),
    "fake": (
        PLAIN,
        (*RUN, "--backend", "fake", "--model", "any", "--fake-near-miss-rate", "0.3", "--save_path", "OUT/fake"),
    ),
    "fake, failing": (
        PLAIN,
        (*RUN, "--backend", "fake", "--model", "any", "--fake-failure-rate", "0.3", "--save_path", "OUT/failing"),
    ),
    "again": (PLAIN, (*PASSKEY, *FEW, "--save_path", "OUT/native")),
    "other setting, same folder": (PLAIN, (*PASSKEY, *FEW, "--memory", "off", "--save_path", "OUT/native")),
    "generate": (
        PLAIN,
        (
            *(
                "generate",
                "--tokenizer_path",
                "checkpoints/infini-demo",
                "--context_length",
                "700",
                "--depths",
                "0,50,100",
            ),
            *("--num_prompts", "2", "--save_path", "OUT/data", "--quiet"),
        ),
    ),
    "data check": (PLAIN, ("data", "check", DATA, "--tokenizer", "checkpoints/infini-demo/tokenizer")),
    "analyze": (PLAIN, ("analyze", "OUT/native", "OUT/ablated", "--quiet")),
    "compare": (PLAIN, ("compare", "OUT/native", "OUT/ablated")),
    "track": (PLAIN, ("track", "OUT")),
    "inspect": (PLAIN, ("inspect", "--ckpt-path", "checkpoints/infini-demo")),
    "plan": (PLAIN, ("plan", "--model", "llama-4-scout", "--context", "128k", "--gpus", "4xH100-80GB")),
    "no such flag": (PLAIN, (*PASSKEY, "--save_path", "OUT/no", "--no-such-flag")),
    "no such checkpoint": (PLAIN, (*PASSKEY[:2], "OUT/none", *PASSKEY[3:], "--save_path", "OUT/no")),
    "foreign flag": (PLAIN, (*RUN, "--backend", "fake", "--model", "any", "--memory", "off", "--save_path", "OUT/no")),
}
TIMES = {"seconds", "replica"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revision")
    parser.add_argument("--keep", type=Path, help="keep both sides' results here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        place = args.keep or Path(temporary)
        old_tree = Path(temporary) / "old"
        subprocess.run(["git", "worktree", "add", "-q", "--detach", str(old_tree), args.revision], cwd=ROOT, check=True)
        try:
            statuses = {side: run_side(tree, place / side) for side, tree in (("old", old_tree), ("new", ROOT))}
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(old_tree)], cwd=ROOT, check=True)
        differences = [*status_differences(statuses), *folder_differences(place / "old", place / "new")]
    print("\n".join(differences) or f"{len(COMMANDS)} commands: the same statuses, answers, data and summaries")
    return 1 if differences else 0


def run_side(tree: Path, out: Path) -> dict[str, int]:
    """Run every command with the code of one tree; exit statuses by name."""
    environment = os.environ | {"PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    out.mkdir(parents=True, exist_ok=True)
    statuses = {}
    for name, (launcher, words) in COMMANDS.items():
        command = [sys.executable, *launcher, *(word.replace("OUT", str(out)) for word in words)]
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
        statuses[name] = done.returncode
        (out / f"{name.replace(' ', '-')}.log").write_text(done.stdout + done.stderr)
        print(f"{out.name:4} {name}: {done.returncode}", flush=True)
    return statuses


def status_differences(statuses: dict[str, dict[str, int]]) -> Iterator[str]:
    for name in COMMANDS:
        old, new = statuses["old"][name], statuses["new"][name]
        if old != new:
            yield f"{name}: exit status {old} before, {new} now"


def folder_differences(old: Path, new: Path) -> Iterator[str]:
    """What differs in the records, summaries and generated rows."""
    for folder in sorted(path.parent for path in old.glob("*/manifest.json")):
        name = folder.name
        before, now = records(folder), records(new / name)
        if before.keys() != now.keys():
            yield f"{name}: {len(before)} samples before, {len(now)} now, {len(before.keys() & now.keys())} in both"
        for key in sorted(before.keys() & now.keys()):
            yield from (f"{name}, sample {key}: {line}" for line in lost(before[key], now[key]))
        sides = [json.loads((side / name / "summary.json").read_text()) for side in (old, new)]
        yield from (f"{name}/summary.json: {line}" for line in lost(*map(measured, sides)))
    for path in sorted(old.rglob("data/**/*.parquet")):
        yield from (f"{path.name}: {line}" for line in lost(rows(path), rows(new / path.relative_to(old))))


def records(folder: Path) -> dict[str, dict[str, Any]]:
    lines = [line for path in sorted(folder.glob("samples/*.jsonl")) for line in path.read_text().splitlines()]
    found = [json.loads(line) for line in lines]
    return {row["sample_key"]: {name: value for name, value in row.items() if name not in TIMES} for row in found}


def measured(summary: dict[str, Any]) -> dict[str, Any]:
    """The part of a summary that counts answers; intervals, verdicts and texts may be improved on purpose."""
    cells = [
        {name: cell[name] for name in ("depth_percent", "accuracy", "num_samples", "correct")}
        for cell in summary["results_by_depth"]
    ]
    names = ("model", "context_length", "total_samples", "failed_samples", "scorer", "segment_length")
    stats = {name: summary["summary_stats"][name] for name in ("average_accuracy", "std_dev")}
    return {**{name: summary[name] for name in names}, **stats, "cells": cells}


def rows(path: Path) -> dict[str, Any]:
    import pyarrow.parquet as pq

    columns: dict[str, Any] = pq.read_table(path).to_pydict()
    return columns


def lost(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """Names whose values are gone or changed; new names are none of them."""
    for name, value in before.items():
        other = now.get(name, "(gone)")
        if not alike(value, other):
            yield f"{name} was {value!r}, is {other!r}"


def alike(one: Any, other: Any) -> bool:
    both_nan = isinstance(one, float) and isinstance(other, float) and math.isnan(one) and math.isnan(other)
    return bool(both_nan or one == other)


if __name__ == "__main__":
    sys.exit(main())
