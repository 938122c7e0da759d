#!/usr/bin/env python3
"""Makes passkey data as `infini-eval generate` does, but writes save_to_disk folders unless `--format parquet`."""

from __future__ import annotations

import sys

from infini_eval.cli.main import run_command

if __name__ == "__main__":
    arguments = sys.argv[1:]
    if not any(argument.split("=")[0] == "--format" for argument in arguments):
        arguments += ["--format", "hf"]
    sys.exit(run_command("generate", arguments, prog="generate_data.py"))
