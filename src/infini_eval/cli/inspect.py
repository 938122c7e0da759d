"""Look at a checkpoint before evaluating it: topology, dtype, segments, gates by layer and head, and what stands out.

infini-eval inspect --ckpt-path CKPT [--json] [--output DIR]
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from infini_eval.cli import flags
from infini_eval.errors import EXIT_OK, ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    flags.add_checkpoint_flag(parser)
    flags.add_flag(parser, "--json", action="store_true", help="print JSON instead of text")
    flags.add_flag(
        parser, "--output", metavar="DIR", help="also draw the gates: DIR/plots/gates.png, and gates.csv beside it"
    )


def run(args: argparse.Namespace) -> int:
    from infini_eval.checkpoint.reader import Checkpoint
    from infini_eval.diagnosis.findings import inspect
    from infini_eval.diagnosis.text import inspection_text

    found = inspect(Checkpoint(args.ckpt_path))
    print(json.dumps(asdict(found), indent=2) if args.json else inspection_text(found))
    if args.output:
        if not found.gates:
            raise ConfigError(f"{found.folder} has no gates to draw")
        from infini_eval.reports.plots import write_gates

        for path in write_gates(found.gates, Path(args.output)):
            print(f"written: {path}")
    return EXIT_OK
