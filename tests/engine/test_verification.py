"""What is compared with a reference: equal logits and tokens pass, differences, NaN and foreign files do not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import infini_eval
from infini_eval.engine.native_model import NativeModel
from infini_eval.engine.verification import LogitComparison, compare, read_reference
from infini_eval.errors import DataError
from infini_eval.testing.tiny_models import write_tiny_checkpoint

IDS_BT = torch.arange(3, 45).view(2, 21)
PROMPT = [5, 6, 7]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> NativeModel:
    return infini_eval.load_model(write_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "1"), device="cpu")


def compared(model: NativeModel, folder: Path, logits_BTV: torch.Tensor, tokens: list[int]) -> LogitComparison:
    logits_file, generation_file = folder / "logits.safetensors", folder / "generation.json"
    save_file({"input_ids": IDS_BT, "logits": logits_BTV}, logits_file)
    generation_file.write_text(json.dumps({"prompt_ids": [PROMPT], "generated": [tokens]}))
    return compare(model, read_reference(str(logits_file), str(generation_file), "rotary"), range(2))


def test_a_checkpoint_agrees_with_itself(model: NativeModel, tmp_path: Path) -> None:
    tokens = model.generate([PROMPT], 6, stop_ids=())[0]
    result = compared(model, tmp_path, model.logits(IDS_BT), tokens)
    assert (result.max_difference, result.mean_difference) == (0.0, 0.0)
    assert (result.rows_generated, result.rows_agreeing, result.rows_identical) == (1, 1, 1)


def test_differences_are_found(model: NativeModel, tmp_path: Path) -> None:
    logits_BTV, tokens = model.logits(IDS_BT).clone(), model.generate([PROMPT], 6, stop_ids=())[0]
    logits_BTV[1, 7, 3] += 2.0
    tokens[4] = (tokens[4] + 1) % model.config.vocab_size
    result = compared(model, tmp_path, logits_BTV, tokens)
    assert result.max_difference == pytest.approx(2.0, abs=1e-5)
    assert result.mean_difference == pytest.approx(2.0 / logits_BTV.numel(), rel=1e-4)
    assert (result.rows_agreeing, result.rows_identical) == (0, 0)


def test_nan_is_no_small_difference(model: NativeModel, tmp_path: Path) -> None:
    logits_BTV = model.logits(IDS_BT).clone()
    logits_BTV[0, 0, 0] = float("nan")
    assert compared(model, tmp_path, logits_BTV, [1]).max_difference == float("inf")


def test_foreign_files_are_refused(model: NativeModel, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="over 7 tokens"):
        compared(model, tmp_path, torch.zeros(*IDS_BT.shape, 7), [1])
    save_file({"weights": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(DataError, match=r"holds weights \(3,\)"):
        read_reference(str(tmp_path / "other.safetensors"), None, "rotary")
    with pytest.raises(DataError, match="cannot read"):
        read_reference(str(tmp_path / "absent.safetensors"), None, "rotary")
