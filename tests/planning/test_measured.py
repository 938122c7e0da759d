"""Planned bytes against the bytes of the tensors that are alive, counted: malloc and the clock have no say here.

What a process's resident size shows beside them is measured by benchmarks/planned_memory.py (docs/planner.md).
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # the package `benchmarks` is not installed

from benchmarks.planned_memory import Case, counted, planned_tensors, write  # noqa: E402

NATIVE = {
    "infini": Case("native", (128, 384, 3, 4, 4, 2048), 64, 2048),
    "infini-gqa-rows": Case("native", (128, 384, 3, 8, 2, 2048), 64, 1024, 3),
    "infini-bf16": Case("native", (128, 384, 3, 4, 4, 2048), 64, 2048, 1, "bfloat16"),
    "plain": Case("native", (128, 384, 3, 4, 2, 2048), None, 2048),
    "plain-rows": Case("native", (128, 384, 3, 4, 2, 2048), None, 1024, 2),
}
TRANSFORMERS = {
    "hf-one-step": Case("transformers", (256, 1024, 4, 8, 4, 1024), None, 3000),
    "hf-steps": Case("transformers", (128, 384, 3, 4, 4, 2048), None, 6000),
    "hf-gqa": Case("transformers", (128, 384, 3, 8, 2, 2048), None, 6000),
    "hf-rows": Case("transformers", (128, 384, 3, 4, 4, 2048), None, 2000, 2),
    "hf-bf16-rows": Case("transformers", (128, 384, 3, 8, 2, 2048), None, 2500, 2, "bfloat16", "bfloat16"),
}
EXPORTED = {
    "exported": Case("transformers", (128, 384, 3, 4, 4, 2048), 64, 6000),
    "exported-gqa-rows": Case("transformers", (128, 384, 3, 8, 2, 2048), 128, 3000, 2),
    "exported-bf16": Case("transformers", (128, 384, 3, 4, 4, 2048), 256, 6000, 1, "bfloat16", "bfloat16"),
    "exported-wide-mlp": Case("transformers", (128, 1024, 3, 4, 4, 2048), 64, 6000),
}
CASES = NATIVE | TRANSFORMERS | EXPORTED


@pytest.mark.parametrize("name", CASES)
def test_planned_tensors_are_those_that_live(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    write(case, tmp_path)
    planned, alive = planned_tensors(case, tmp_path), counted(case, tmp_path)
    assert 0.92 * alive <= planned <= 1.05 * alive
