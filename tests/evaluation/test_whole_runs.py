"""A whole evaluation whose token ids are all made again: the same records as with ids that were kept, and its seconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infini_eval.config import EvalConfig, Topology
from infini_eval.evaluation import prepare
from infini_eval.evaluation.run import evaluate
from infini_eval.testing.distributed import run_distributed_test

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "examples/infinite-context-length/data/demo-1024-passkey-eval"
TIMES = ("seconds", "replica")


def answered(folder: str, kept_bytes: int, sizes: Topology) -> None:
    prepare.KEPT_BYTES = kept_bytes
    config = EvalConfig(
        *(str(ROOT / "checkpoints/infini-demo"), folder, str(DATA)),
        num_samples=2, depths=(0, 50, 100), max_new_tokens=6, batch_size=2, topology=sizes, quiet=True,
    )  # fmt: skip
    evaluate(config)


def records(folder: Path) -> dict[str, dict]:
    lines = [line for path in (folder / "samples").glob("*.jsonl") for line in path.read_text().splitlines()]
    found = [{key: value for key, value in json.loads(line).items() if key not in TIMES} for line in lines]
    assert len(found) == 6
    return {record["sample_key"]: record for record in found}


@pytest.mark.distributed
@pytest.mark.parametrize("sizes", [Topology(dp=2), Topology(pp=2), Topology(dp=2, tp=2)], ids=["dp2", "pp2", "dp2tp2"])
def test_records_do_not_depend_on_which_ids_are_kept(tmp_path, monkeypatch, sizes):
    monkeypatch.setattr(prepare, "KEPT_BYTES", prepare.KEPT_BYTES)  # put back after the test
    answered(str(tmp_path / "alone"), prepare.KEPT_BYTES, Topology())
    processes = (sizes.dp or 1) * (sizes.tp or 1) * (sizes.pp or 1)
    run_distributed_test(answered, processes, None, args=(str(tmp_path / "many"), 0, sizes))
    assert records(tmp_path / "many") == records(tmp_path / "alone")
    seconds = json.loads((tmp_path / "many/manifest.json").read_text())["environment"]["seconds"]
    assert list(seconds) == [
        *("reading the data", "opening the model", "tokenising", "planning"),
        *("loading the model", "answering", "merging"),
    ]
    assert seconds["answering"]["wall"] >= 0 and seconds["answering"]["cpu"] > 0
