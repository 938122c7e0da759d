"""Evaluate a nanotron checkpoint on passkey retrieval: `infini-eval passkey` (see --help), logging as the guide prints."""

import sys

from infini_eval.cli.main import run_command

if __name__ == "__main__":
    sys.exit(run_command("passkey", log_format="guide"))
