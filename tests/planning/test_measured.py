"""Planned bytes against the real peak of a process, as a run measures it: within 10 % for cases above 200 MB."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# those whose peak differs little from run to run: docs/planner.md has all, with their scatter
CASES = ["native-640-rows", "native-plain-rows", "hf-bf16-gqa", "hf-896-gqa"]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak can be reset on Linux only")
@pytest.mark.parametrize("case", CASES)
def test_planned_is_within_10_percent_of_measured(case: str):
    command = [sys.executable, str(ROOT / "benchmarks/planned_memory.py"), "--cases", case, "--json"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=280)
    assert done.stdout, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["planned"] == pytest.approx(found["measured"], rel=0.10), found
