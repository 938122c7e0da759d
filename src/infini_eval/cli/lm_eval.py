"""EleutherAI's lm-eval with the model `infini`: its own command line, with a checkpoint of ours in it.

  infini-eval lm-eval --model infini --model_args pretrained=checkpoints/infini-demo,memory=on \\
      --include_path examples/harnesses/lm-eval --tasks demo_passkey

All arguments are lm-eval's (`infini-eval lm-eval run --help`); pip install 'infini-eval[lm-eval]' installs it. Where lm-eval
reads entry points, `lm_eval --model infini` is the same.
"""

from __future__ import annotations

import argparse
import traceback

from infini_eval.cli.flags import pass_on
from infini_eval.errors import EXIT_CHECK_FAILED, EXIT_OK, InfiniEvalError
from infini_eval.packages import require


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass_on(parser, "lm-eval's arguments, as they are")


def run(args: argparse.Namespace) -> int:
    """Hand over to lm-eval."""
    require("lm_eval", extra="lm-eval", purpose="infini-eval lm-eval")
    from infini_eval.harnesses.lm_eval import run_command_line

    try:
        run_command_line(args.words)
    except InfiniEvalError:
        raise
    except Exception:  # lm-eval's own mistakes and its users' are shown as it shows them
        traceback.print_exc()
        return EXIT_CHECK_FAILED
    return EXIT_OK
