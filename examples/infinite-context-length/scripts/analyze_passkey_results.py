"""Report on results folders: python analyze_passkey_results.py DIR... [--quiet] [--json-only] [--ascii]."""

import sys

from infini_eval.cli.main import run_command

if __name__ == "__main__":
    sys.exit(run_command("analyze"))
