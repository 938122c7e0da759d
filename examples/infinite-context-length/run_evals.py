"""Needle trials at given lengths and depths on a checkpoint: `infini-eval grid` (see --help), logging as the guide prints."""

import sys

from infini_eval.cli.main import run_command

if __name__ == "__main__":
    sys.exit(run_command("grid", log_format="guide"))
