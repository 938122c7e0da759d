"""A whole grid of lengths and depths loads its checkpoint once; the same command again, not at all."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from shlex import quote, split
from unittest import mock

from benchmarks._harness import DEMO, Metric, gate, temporary_folder
from infini_eval.cli.main import main
from infini_eval.engine.native_model import NativeModel


def run(toy: bool) -> list[Metric]:
    lengths = "256 384" if toy else "512 1024 2048"
    with temporary_folder() as folder:
        quietly(
            f"generate --context_length {lengths} --depths 0,50,100 --num_prompts 1 "
            f"--tokenizer_path {quote(str(DEMO / 'tokenizer'))} --save_path {folder / 'data'}"
        )
        paths = f"--save_path {folder / 'run'} --eval_dataset_path {folder / 'data'}"
        command = f"passkey --ckpt-path {quote(str(DEMO))} {paths} --quiet"
        first, again = loads_of(command), loads_of(command)
        answered = sum(len(file.read_text().splitlines()) for file in (folder / "run" / "samples").glob("*.jsonl"))
    gate(answered == 3 * len(lengths.split()), f"{answered} of {3 * len(lengths.split())} samples were answered")
    return [
        Metric("loads_per_run", first, "", "<=", 1, f"lengths {lengths}, 3 depths each"),
        Metric("loads_of_finished_run", again, "", "<=", 0, "the same command again"),
    ]


def loads_of(command: str) -> int:
    """How often a command builds a model from a checkpoint."""
    with mock.patch.object(NativeModel, "load", side_effect=NativeModel.load) as load:
        quietly(command)
    return load.call_count


def quietly(command: str) -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            status = main(split(command))
        except SystemExit as usage:  # argparse
            status = int(usage.code or 0)
    gate(status == 0, f"{Path(command).name} ended with {status}: {printed.getvalue()[-2000:]}")
