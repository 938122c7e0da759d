"""Why does retrieval work or fail? Health of the memory, a retrieval probe, and ablations by head, on real prompts.

  infini-eval diagnose --ckpt-path CKPT --eval_dataset_path DATA [--depths 0,25,50] [--num_samples 4] [--output diagnosis.json]

One process, fp32, prompts of up to 65,536 tokens. docs/diagnosis.md says how each number is measured and what it cannot tell.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from infini_eval.cli import flags
from infini_eval.errors import EXIT_OK

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
    flags.add_flag(parser, "--output", metavar="FILE", help="write the measurements as JSON")
    flags.add_flag(parser, "--json", action="store_true", help="print JSON instead of text")


def run(args: argparse.Namespace) -> int:
    from infini_eval.diagnosis.text import diagnosis_text
    from infini_eval.distributed.logging import setup_logging

    setup_logging()
    report = diagnose_dataset(args)
    if args.output:
        Path(args.output).parent.mkdir(parents=True, exist_ok=True)
        Path(args.output).write_text(json.dumps(report, indent=2))
    print(json.dumps(report, indent=2) if args.json else diagnosis_text(report))
    return EXIT_OK


def diagnose_dataset(args: argparse.Namespace, per_depth: int | None = None) -> dict[str, Any]:
    """Diagnose on the rows that the data flags choose: `per_depth` of each depth, or --num_samples, or 4."""
    from infini_eval.backends.nanotron import open_tokenizer, prepare_sample
    from infini_eval.checkpoint.reader import Checkpoint
    from infini_eval.datasets.parquet import load_samples, select_samples
    from infini_eval.diagnosis.diagnose import diagnose
    from infini_eval.tasks.passkey import TASK

    filters = {"num_shots": args.num_shots, "num_digits": args.num_digits, "context_length": args.context_length}
    data = load_samples(args.eval_dataset_path, **filters, depths=args.depths)
    samples, _ = select_samples(data.samples, per_depth or args.num_samples or PER_DEPTH, args.seed)
    checkpoint = Checkpoint(args.ckpt_path)
    tokenizer = open_tokenizer(args.tokenizer, checkpoint)
    length = checkpoint.config.segment_length
    prepared = [prepare_sample(sample, TASK.locate(sample), tokenizer, length) for sample in samples]
    return diagnose(checkpoint, tokenizer, prepared)


def write_into(folder: Path, args: argparse.Namespace) -> str:
    """Diagnose PER_DEPTH samples of each depth into a run folder's diagnosis.json and diagnosis.txt; the text."""
    from infini_eval.diagnosis.text import diagnosis_text

    report = diagnose_dataset(args, PER_DEPTH)
    text = diagnosis_text(report)
    (folder / "diagnosis.json").write_text(json.dumps(report, indent=2))
    (folder / "diagnosis.txt").write_text(text + "\n")
    return text
