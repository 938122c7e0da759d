"""Load a model and tokenise a data set without generating: memory and time, as JSON on stdout. The flags of `run`.

infini-eval load --task niah --backend transformers --model DIR --eval_dataset_path DATA --save_path unused
"""

from __future__ import annotations

import argparse
import json

from infini_eval.cli.evaluation_flags import run_config
from infini_eval.cli.run import add_arguments
from infini_eval.errors import EXIT_OK

__all__ = ["add_arguments", "run"]


def run(args: argparse.Namespace) -> int:
    config = run_config(args)
    from infini_eval.evaluation.load_only import load_only

    found = load_only(config, timeout_s=args.timeout)
    if found is not None:
        print(json.dumps(found))
    return EXIT_OK
