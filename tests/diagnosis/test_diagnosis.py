"""Diagnosis: findings about gates, the trace against the engine, ablations against the ablated model, verdict rules."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.config import ModelSettings
from infini_eval.diagnosis.ablation import head_effects
from infini_eval.diagnosis.findings import inspect
from infini_eval.diagnosis.probe import probe
from infini_eval.diagnosis.text import inspection_text
from infini_eval.diagnosis.trace import load_weights, trace
from infini_eval.diagnosis.verdict import Evidence, Interval, judge
from infini_eval.engine.native_model import NativeModel
from infini_eval.models.naive import naive_logits
from infini_eval.testing.tiny_checkpoints import tiny_config, write_tiny_checkpoint


@pytest.fixture
def checkpoint(tmp_path) -> Checkpoint:
    return Checkpoint(write_tiny_checkpoint(tmp_path / "1"))


def set_gates(checkpoint: Checkpoint, value: float, dtype=torch.float32) -> Checkpoint:
    from safetensors import safe_open

    for path in checkpoint.folder.glob("model/**/model_balance_factors*"):
        with safe_open(path, "pt") as handle:
            metadata = handle.metadata()
        save_file({"data": torch.full_like(load_file(path)["data"], value).to(dtype)}, path, metadata=metadata)
    return Checkpoint(checkpoint.folder)


def texts(checkpoint: Checkpoint) -> str:
    return " | ".join(f"{finding.level}: {finding.text}" for finding in inspect(checkpoint).findings)


def test_trained_gates_are_ok(checkpoint: Checkpoint) -> None:
    assert texts(checkpoint).startswith("ok: gates were trained")


def test_untrained_gates_are_a_problem(checkpoint: Checkpoint) -> None:
    assert "problem: all gates are where they started (0.500)" in texts(set_gates(checkpoint, 0.0))


def test_closed_gates_are_a_problem(checkpoint: Checkpoint) -> None:
    assert "problem: layer 3 does not use its memory" in texts(set_gates(checkpoint, -9.0))


def test_saturated_gates_and_low_precision_are_noted(tmp_path) -> None:
    config = tiny_config(balance_act_type="hard_sigmoid")
    found = texts(set_gates(Checkpoint(write_tiny_checkpoint(tmp_path / "1", config)), 3.0, torch.bfloat16))
    assert "gates at exactly 0 or 1" in found and "layer 0 heads 0, 1, 2, 3" in found
    assert "stored in bfloat16" in found


def test_nan_weights_are_named(checkpoint: Checkpoint) -> None:
    assert "problem: 4 of 4 values of model.decoder.0" in texts(set_gates(checkpoint, float("nan")))


def test_inspection_shows_every_layer(checkpoint: Checkpoint) -> None:
    text = inspection_text(inspect(checkpoint))
    assert all(f"layer   {layer} |" in text for layer in range(4))


def test_a_plain_llama_has_nothing_to_diagnose(tmp_path) -> None:
    found = inspect(Checkpoint(write_tiny_checkpoint(tmp_path / "1", tiny_config(infini=False))))
    assert found.gates == [] and "plain Llama" in found.findings[-1].text


@pytest.mark.parametrize("tokens", [17, 24, 61])
def test_the_trace_ends_in_the_models_logits(checkpoint: Checkpoint, tokens: int) -> None:
    ids = torch.arange(tokens) % 96
    weights = load_weights(checkpoint)
    traced = trace(weights, checkpoint, ids, 0, "rotary")
    expected = naive_logits(weights, checkpoint.config, ids[None], memory="on", memory_query="rotary")[0, -1]
    torch.testing.assert_close(traced.logits_V, expected, atol=1e-4, rtol=0)
    last = (tokens - 1) // 8
    assert traced.layers[0].points[0] == 1 and traced.layers[0].points[-1] == last


def test_direct_logits_add_up_to_the_models_own(checkpoint: Checkpoint) -> None:
    """The whole residual stream, put through the attribution, must give the logits themselves."""
    traced = trace(load_weights(checkpoint), checkpoint, torch.arange(40) % 96, 1, "rotary")
    torch.testing.assert_close(traced.direct_logits(traced.hidden_D), traced.logits_V, atol=1e-4, rtol=0)


def test_probe_is_linear_in_what_was_read(checkpoint: Checkpoint) -> None:
    traced = trace(load_weights(checkpoint), checkpoint, torch.arange(61) % 96, 2, "rotary")
    found = probe(traced, 2, 5, [6, 7])
    assert found.after == (0, 1, 2, 4)
    layer = traced.layers[1]
    vector = torch.einsum("nh,dnh->nd", layer.retrieved_PNH[-1], layer.out_weight_DNH)
    logits = traced.direct_logits(vector)
    expected = logits[:, 5] - logits[:, [6, 7]].mean(-1)
    torch.testing.assert_close(found.ungated[1, -1], expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.gated[1, -1], expected * layer.gate_N, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("tokens", [33, 40, 47])
def test_ablating_all_heads_at_the_question_equals_closing_their_reads(checkpoint: Checkpoint, tokens: int) -> None:
    """Against the naive forward: the question's segment recomputed with retrieved = 0 from its border on."""
    model = NativeModel.load(checkpoint, ModelSettings(device="cpu"))
    prompt, answer = np.arange(tokens) % 96, [5, 9, 11]
    log_p, by_head, by_layer, without = head_effects(model, prompt, answer)
    ids = torch.tensor([[*prompt.tolist(), *answer]])
    whole = model.logits(ids).log_softmax(-1)[0]
    expected = sum(whole[tokens - 1 + i, token].item() for i, token in enumerate(answer))
    assert log_p == pytest.approx(expected, abs=1e-3)
    assert by_head.shape == (4, 4) and by_layer.shape == (4,)
    assert without != pytest.approx(0, abs=1e-4)


def test_a_head_with_a_closed_gate_loses_nothing(tmp_path) -> None:
    checkpoint = set_gates(
        Checkpoint(write_tiny_checkpoint(tmp_path / "1", tiny_config(balance_act_type="hard_sigmoid"))), -3.0
    )
    model = NativeModel.load(checkpoint, ModelSettings(device="cpu"))
    _, by_head, _, without = head_effects(model, np.arange(40) % 96, [5, 6])
    assert by_head.abs().max() < 1e-4 and abs(without) < 1e-4


def interval(low: float, high: float) -> Interval:
    return Interval((low + high) / 2, low, high, 9)


STRONG, NOTHING, BROAD = interval(3, 5), interval(-0.2, 0.2), interval(-2, 4)
CASES = {
    "never written": Evidence(NOTHING, NOTHING, NOTHING, NOTHING, NOTHING),
    "overwritten": Evidence(STRONG, NOTHING, NOTHING, NOTHING, interval(-5, -3)),
    "not read": Evidence(STRONG, STRONG, NOTHING, NOTHING, NOTHING),
    "read but not used": Evidence(STRONG, STRONG, STRONG, STRONG, NOTHING),
    "undecided": Evidence(BROAD, BROAD, BROAD, BROAD, BROAD),
}


@pytest.mark.parametrize("label", CASES)
def test_each_class_needs_its_evidence(label: str) -> None:
    assert judge(CASES[label], 3, 9).label == label


def test_few_failures_decide_nothing() -> None:
    assert judge(CASES["never written"], 20, 4).label == "undecided"
    assert judge(None, 20, 0).label == "works"


def test_intervals_are_students() -> None:
    from scipy import stats

    values = [1.0, 2.0, 4.0, 4.5]
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    found = Interval.of(values)
    assert (found.low, found.high) == pytest.approx((low, high))
