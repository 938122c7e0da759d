"""Why does retrieval work or fail? A control without memory, what the memory holds, and ablations by head, on real prompts.

  infini-eval diagnose --ckpt-path CKPT --eval_dataset_path DATA [--depths 0,25,50] [--num_samples 4] [--output diagnosis.json]
  infini-eval diagnose --ckpt-path CKPT --eval_dataset_path DATA --capacity

One process, fp32, prompts of up to 65,536 tokens. docs/diagnosis.md says how each number is measured and what it cannot tell.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infini_eval.cli import flags
from infini_eval.errors import EXIT_OK

if TYPE_CHECKING:
    from infini_eval.api.backend import WorkItem
    from infini_eval.checkpoint.reader import Checkpoint
    from infini_eval.data.tokenizer import Tokenizer
    from infini_eval.records import Sample

PER_DEPTH = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    flags.add_checkpoint_flag(parser)
    flags.add_data_flags(parser)
    flags.add_flag(
        parser,
        "--tokenizer",
        metavar="DIR",
        help="folder or hub id (default: the configuration's, or beside the checkpoint)",
    )
    flags.add_flag(
        parser,
        "--capacity",
        action="store_true",
        help="measure instead how long a context the memory bears: prompts of at least four segments",
    )
    flags.add_flag(parser, "--output", metavar="FILE", help="write the measurements as JSON")
    flags.add_flag(parser, "--json", action="store_true", help="print JSON instead of text")


def run(args: argparse.Namespace) -> int:
    from infini_eval.diagnosis.text import capacity_text, diagnosis_text
    from infini_eval.distributed.logging import setup_logging

    setup_logging()
    report = capacity_of_dataset(args) if args.capacity else diagnose_dataset(args)
    if args.output:
        Path(args.output).parent.mkdir(parents=True, exist_ok=True)
        Path(args.output).write_text(_json(report) + "\n")
    text = capacity_text if args.capacity else diagnosis_text
    print(_json(report) if args.json else text(report))
    return EXIT_OK


def diagnose_dataset(args: argparse.Namespace, keys_first: Collection[str] | None = None) -> dict[str, Any]:
    """Diagnose on the rows that the data flags choose, --num_samples of each depth or 4; these samples' keys first."""
    from infini_eval.diagnosis.diagnose import diagnose

    report = diagnose(*_prepared(args, keys_first))
    return {**report, "chosen": "as the data flags say" if keys_first is None else "wrong answers first"}


def capacity_of_dataset(args: argparse.Namespace) -> dict[str, Any]:
    """Measure the capacity on the rows that the data flags choose, --num_samples of each depth or 4."""
    from infini_eval.diagnosis.capacity import capacity
    from infini_eval.diagnosis.sample import open_diagnoser

    checkpoint, tokenizer, prepared = _prepared(args, None)
    return capacity(open_diagnoser(checkpoint, tokenizer), prepared)


def _prepared(
    args: argparse.Namespace, keys_first: Collection[str] | None
) -> tuple[Checkpoint, Tokenizer, list[WorkItem]]:
    """The checkpoint, its tokenizer, and the chosen rows as prompts."""
    from infini_eval.backends.nanotron import prepare_sample
    from infini_eval.checkpoint.reader import Checkpoint
    from infini_eval.data.reading import load_samples, select_samples
    from infini_eval.engine.text import open_tokenizer
    from infini_eval.tasks.passkey import TASK

    filters = {"num_shots": args.num_shots, "num_digits": args.num_digits, "context_length": args.context_length}
    filters |= {"columns": dict(args.columns), "split": args.split}
    data = load_samples(args.eval_dataset_path, **filters, depths=args.depths)
    if keys_first is None:
        samples, _ = select_samples(data.samples, args.num_samples or PER_DEPTH, args.seed)
    else:
        samples = first_of_each_depth(select_samples(data.samples, args.num_samples, args.seed)[0], keys_first)
    checkpoint = Checkpoint(args.ckpt_path)
    tokenizer = open_tokenizer(args.tokenizer, checkpoint)
    length = checkpoint.config.segment_length
    return checkpoint, tokenizer, [prepare_sample(s, TASK.locate(s), tokenizer, length) for s in samples]


def first_of_each_depth(samples: Sequence[Sample], keys_first: Collection[str]) -> list[Sample]:
    """PER_DEPTH samples of each depth, those with these keys before others, in the order of the data."""
    chosen: dict[float, list[Sample]] = {}
    for sample in sorted(samples, key=lambda sample: sample.key not in keys_first):
        cell = chosen.setdefault(sample.depth_percent, [])
        if len(cell) < PER_DEPTH:
            cell.append(sample)
    return [sample for _, cell in sorted(chosen.items()) for sample in cell]


def write_into(folder: Path, args: argparse.Namespace) -> str:
    """Diagnose PER_DEPTH samples of each depth, wrong ones first, into a run folder's diagnosis.json and .txt; the text."""
    from infini_eval.diagnosis.text import diagnosis_text
    from infini_eval.results.files import write_atomically

    report = diagnose_dataset(args, _wrong_keys(folder))
    text = diagnosis_text(report)
    write_atomically(folder / "diagnosis.json", (_json(report) + "\n").encode())
    write_atomically(folder / "diagnosis.txt", (text + "\n").encode())
    return text


def _json(report: dict[str, Any]) -> str:
    """The report as JSON, in which there is no NaN: null stands for it."""
    return json.dumps(_finite(report), indent=2, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _wrong_keys(folder: Path) -> set[str]:
    """The keys of the samples that this run answered wrongly."""
    import numpy as np

    from infini_eval.results.reader import read_run

    records = read_run(folder)
    wrong = np.flatnonzero(records.number("correct") < 1)
    return {key for key in records.texts("sample_key", wrong) if key}
