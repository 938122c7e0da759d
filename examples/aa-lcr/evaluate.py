#!/usr/bin/env python3
"""Judges the answers of generate.py and prints the accuracy with n and its interval; `infini-eval aa-lcr-evaluate`."""

from __future__ import annotations

import sys

from infini_eval.cli.main import run_command

if __name__ == "__main__":
    sys.exit(run_command("aa-lcr-evaluate", prog="evaluate.py"))
