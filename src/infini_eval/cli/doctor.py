"""What works on this machine, what is missing, and the command that mends it.

  infini-eval doctor
  infini-eval doctor --model llama-4-scout --json

Exit status 0: nothing is wrong (optional parts may be missing); 1: something will fail.
"""

from __future__ import annotations

import argparse
import json

from infini_eval.cli import flags
from infini_eval.errors import EXIT_CHECK_FAILED, EXIT_OK

MARKS = {"ok": "✓", "note": "·", "missing": "-", "wrong": "✗"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    flags.add_flag(
        parser, "--model", metavar="MODEL", help="also check what this model needs (preset, config.json, folder)"
    )
    flags.add_flag(parser, "--json", action="store_true", help="print JSON instead of text")


def run(args: argparse.Namespace) -> int:
    from infini_eval.cli.doctor_checks import examine

    findings = examine(args.model)
    if args.json:
        print(json.dumps([vars(finding) for finding in findings], indent=2))
    else:
        width = max(len(finding.subject) for finding in findings)
        for finding in findings:
            print(f"{MARKS[finding.status]} {finding.subject:<{width}}  {finding.text}")
            if finding.mend:
                print(f"  {'':<{width}}  -> {finding.mend}")
        wrong = sum(finding.status == "wrong" for finding in findings)
        print(f"\n{wrong} wrong, {sum(finding.status == 'missing' for finding in findings)} optional parts missing")
    return EXIT_CHECK_FAILED if any(finding.status == "wrong" for finding in findings) else EXIT_OK
