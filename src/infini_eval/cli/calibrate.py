"""Make a checkpoint's memory bear longer contexts without training: sharper queries and keys in the heads that find needles.

  infini-eval calibrate --ckpt-path A --save-path B [--output calibration.json]

The prompts are made here, with the checkpoint's tokenizer. The largest scale is taken that leaves every denominator of
a read at 1e-6 or more; where that does not help, nothing is written. docs/diagnosis.md says what is measured.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from infini_eval.cli import flags
from infini_eval.errors import EXIT_OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    flags.add_checkpoint_flag(parser)
    flags.add_flag(
        parser, "--save-path", required=True, metavar="DIR", help="folder for the new checkpoint, not yet there"
    )
    flags.add_flag(
        parser,
        "--tokenizer",
        metavar="DIR",
        help="folder or hub id (default: the configuration's, or beside the checkpoint)",
    )
    flags.add_flag(parser, "--output", metavar="FILE", help="write the measurements as JSON")


def run(args: argparse.Namespace) -> int:
    from infini_eval.checkpoint.reader import Checkpoint
    from infini_eval.diagnosis.calibration import calibrate_into
    from infini_eval.diagnosis.text import calibration_text
    from infini_eval.distributed.logging import setup_logging
    from infini_eval.engine.text import check_vocabulary, open_tokenizer

    setup_logging()
    checkpoint = Checkpoint(args.ckpt_path)
    tokenizer = open_tokenizer(args.tokenizer, checkpoint)
    check_vocabulary(tokenizer, checkpoint)
    found, folder = calibrate_into(checkpoint, tokenizer, Path(args.save_path))
    report = found.to_json()
    if args.output:
        Path(args.output).parent.mkdir(parents=True, exist_ok=True)
        Path(args.output).write_text(json.dumps(report, indent=2) + "\n")
    print(calibration_text(report))
    print(f"written      {folder}")
    return EXIT_OK
