"""One needle in a very long context; the same as `infini-eval long-context` (see --help)."""

import sys

from infini_eval.cli.main import run_command

if __name__ == "__main__":
    sys.exit(run_command("long-context"))
