"""The question's segment read again: unchanged it gives the model's own logits, and each change is what it says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.config import ModelSettings
from infini_eval.diagnosis.ablation import ask, greedy_answers, memories_at
from infini_eval.diagnosis.evidence import Change, last_logits, mended
from infini_eval.diagnosis.trace import load_weights
from infini_eval.diagnosis.verdict import Share
from infini_eval.diagnosis.written import Told
from infini_eval.engine.native_model import NativeModel
from infini_eval.testing.tiny_models import tiny_config, write_tiny_checkpoint

NONE, EVERY = torch.zeros(4, 4, dtype=torch.bool), torch.ones(4, 4, dtype=torch.bool)
IDS = np.arange(45) % 96


@pytest.fixture(params=[{}, {"rope_interleaved": False}, {"num_key_value_heads": 2}], ids=str)
def parts(request, tmp_path) -> tuple[Checkpoint, NativeModel, Told]:
    checkpoint = Checkpoint(write_tiny_checkpoint(tmp_path / "1", tiny_config(**request.param)))
    model = NativeModel.load(checkpoint, ModelSettings(device="cpu"))
    memory, empty = memories_at(model, IDS, [16, 40]), torch.empty(0)
    return checkpoint, model, Told(empty, empty, memory, torch.ones(4, 4, 8), EVERY, NONE, IDS[40:])


def test_unchanged_it_is_the_models_own(parts) -> None:
    checkpoint, model, told = parts
    expected = model.logits(torch.from_numpy(IDS)[None])[0, -1]
    found = last_logits(load_weights(checkpoint), checkpoint, told, Change())
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_fresh_memory_is_that_of_a_prompt_without_what_lies_between(parts) -> None:
    checkpoint, model, told = parts
    shorter = np.concatenate([IDS[:16], IDS[40:]])
    expected = model.logits(torch.from_numpy(shorter)[None])[0, -1]
    found = last_logits(load_weights(checkpoint), checkpoint, told, Change(point=0))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_closed_reads_are_those_of_the_ablation(parts) -> None:
    checkpoint, model, told = parts
    found = last_logits(load_weights(checkpoint), checkpoint, told, Change(reads=False))
    given = greedy_answers(model, ask(model, IDS), torch.zeros(1, 4, 4), 1)
    assert [[int(found.argmax())]] == given


def test_opened_gates_and_own_keys_change_only_their_heads(parts) -> None:
    checkpoint, _, told = parts
    weights = load_weights(checkpoint)
    before = last_logits(weights, checkpoint, told, Change())
    for name in ("open_LN", "own_LN"):
        assert torch.equal(last_logits(weights, checkpoint, told, Change(**{name: NONE})), before)
        assert not torch.allclose(last_logits(weights, checkpoint, told, Change(**{name: EVERY})), before)


def test_tokens_that_come_out_right_are_counted(parts) -> None:
    checkpoint, _, told = parts
    weights = load_weights(checkpoint)
    right = int(last_logits(weights, checkpoint, told, Change(point=0)).argmax())
    found = mended(weights, checkpoint, [(told, right), (told, (right + 1) % 96)], Change(point=0))
    assert found == Share(1, 2)
