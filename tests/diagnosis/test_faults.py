"""Faults put into the shipped checkpoint: nothing is blamed wrongly. The whole table: benchmarks/diagnosis_faults.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the package `benchmarks` is not installed

from benchmarks.diagnosis_faults import FAULTS, is_true, verdict_on

from infini_eval.cli.diagnose import _json
from infini_eval.diagnosis.text import diagnosis_text
from infini_eval.diagnosis.verdict import LABELS

EXACT = {
    "final_norm_zero": "not_a_memory_failure",
    "mlp_zero": "not_a_memory_failure",
    "o_proj_zero": "not_a_memory_failure",
    "embedding_noise": "not_a_memory_failure",
    "rope_theta": "not_a_memory_failure",
    "rope_pairs": "not_a_memory_failure",
    "nan": "not_a_memory_failure",
    "gates_open": "not_a_memory_failure",
    "carrier_shut": "not_read",
    "keys_alike_all": "overwritten",
    "code_never_writes": "never_written",
    "carrier_out_zero": "read_but_not_used",
    "memory_garbage": "memory_harms",
}


PER_DEPTH = {"gates_open": 4, "keys_alike_all": 4}  # six prompts in all leave these undecided, rightly; else 2 do


@pytest.mark.parametrize("name", EXACT)
def test_the_verdict_on_a_fault(name: str, tmp_path) -> None:
    report = verdict_on(name, tmp_path, per_depth=PER_DEPTH.get(name, 2))
    assert report["verdict"]["label"] == EXACT[name] and is_true(name, report)
    text, read = diagnosis_text(report), json.loads(_json(report))
    assert f"VERDICT      {EXACT[name]}" in text and "control      " in text and "evidence     · " in text
    assert set(read["control"]) >= {"n", "right"} and all(isinstance(each, str) for each in read["evidence"])


def test_what_gates_do_is_said(tmp_path) -> None:
    said = " ".join(verdict_on("gates_open", tmp_path, PER_DEPTH["gates_open"])["evidence"])
    assert "closing the memory would help" in said and "has no local attention" in said
    assert "control with every gate at 0.5" in said


@pytest.mark.parametrize(("name", "per_depth"), [("keys_alike_all", 2), ("keys_faint_all", 4)])
def test_a_diluted_memory_is_not_blamed_on_what_comes_after_it(name: str, per_depth: int, tmp_path) -> None:
    assert is_true(name, verdict_on(name, tmp_path, per_depth))


def test_every_fault_has_a_documented_truth() -> None:
    assert len(FAULTS) >= 20
    assert all(set(fault.may) <= set(LABELS) and fault.may for fault in FAULTS.values())
