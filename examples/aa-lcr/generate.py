#!/usr/bin/env python3
"""Answers AA-LCR's questions with any backend and writes them as one JSON file; `infini-eval aa-lcr-generate`."""

from __future__ import annotations

import sys

from infini_eval.cli.main import run_command

if __name__ == "__main__":
    sys.exit(run_command("aa-lcr-generate", prog="generate.py"))
