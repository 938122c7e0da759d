"""Diagnosis: findings about weights, the trace against the engine, ablations against the ablated model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.checkpoint.writer import write_checkpoint
from infini_eval.config import ModelSettings
from infini_eval.diagnosis import ablation
from infini_eval.diagnosis.ablation import ask, head_effects
from infini_eval.diagnosis.findings import inspect
from infini_eval.diagnosis.health import points_along
from infini_eval.diagnosis.sample import contrast, first_difference
from infini_eval.diagnosis.text import inspection_text
from infini_eval.diagnosis.trace import Trace, Watched, load_weights, probe, reachable, trace
from infini_eval.engine.native_model import NativeModel
from infini_eval.models import naive
from infini_eval.models.naive import naive_logits
from infini_eval.testing.tiny_models import tiny_config, tiny_qwen2_config, write_tiny_checkpoint


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


@pytest.mark.parametrize(
    ("name", "rows", "text"),
    [
        ("model.final_layer_norm.pp_block.weight", slice(None), "final_layer_norm.weight is all zeros"),
        ("model.decoder.1.pp_block.attn.o_proj.weight", slice(None), "decoder.1.attn.o_proj.weight is all zeros"),
        (
            "model.decoder.2.pp_block.attn.qkv_proj.weight",
            slice(8, 16),
            "queries in decoder.2.attn.qkv_proj.weight of head 1",
        ),
        (
            "model.decoder.2.pp_block.attn.qkv_proj.weight",
            slice(64, 96),
            "values in decoder.2.attn.qkv_proj.weight of heads 0, 1, 2, 3",
        ),
    ],
)
def test_dead_weights_are_named_and_the_gates_still_shown(tmp_path, name: str, rows: slice, text: str) -> None:
    def kill(parameters: dict[str, torch.Tensor]) -> None:
        parameters[name][rows] = 0

    found = inspect(changed(tmp_path, kill))
    assert [text in finding.text and finding.level for finding in found.findings if "zero" in finding.text] == [
        "problem"
    ]
    assert len(found.gates) == 4


def test_an_output_that_is_zero_is_named_by_head(tmp_path) -> None:
    def kill(parameters: dict[str, torch.Tensor]) -> None:
        parameters["model.decoder.0.pp_block.attn.o_proj.weight"][:, 24:] = 0

    assert "outputs in decoder.0.attn.o_proj.weight of head 3 are zero" in texts(changed(tmp_path, kill))


def test_layers_without_local_attention_are_noted(checkpoint: Checkpoint) -> None:
    assert "note: layer 2 has no local attention: every gate is above 0.98" in texts(set_gates(checkpoint, 9.0))


def changed(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Checkpoint:
    """A tiny checkpoint with some weights changed."""
    source = Checkpoint(write_tiny_checkpoint(folder / "source" / "1"))
    parameters = {name: source.read(name) for name in source.specs}
    change(parameters)
    return Checkpoint(write_checkpoint(folder / "changed" / "1", parameters, tiny_config()))


def test_inspection_shows_every_layer(checkpoint: Checkpoint) -> None:
    text = inspection_text(inspect(checkpoint))
    assert all(f"layer   {layer} |" in text for layer in range(4))


def test_a_plain_llama_has_nothing_to_diagnose(tmp_path) -> None:
    found = inspect(Checkpoint(write_tiny_checkpoint(tmp_path / "1", tiny_config(infini=False))))
    assert found.gates == [] and "plain Llama" in found.findings[-1].text


def test_inspection_says_how_a_qwen2_differs_from_a_llama(tmp_path) -> None:
    config = tiny_qwen2_config(
        attention_bias=True, no_rope_layer=2, sliding_window_size=16, rope_seq_len_interpolation_factor=4.0,
        rope_scaling={"rope_type": "yarn", "factor": 8.0},
    )  # fmt: skip
    found = inspect(Checkpoint(write_tiny_checkpoint(tmp_path / "1", config)))
    text = inspection_text(found)
    assert found.kind == "qwen2" and found.gates == [] and not [one for one in found.findings if one.level == "problem"]
    assert "a plain Qwen2" in text and "biases of q, k and v" in text and "positions divided by 4" in text
    assert "no rotary embedding in 2 of 4 layers" in text and "a sliding window of 16 tokens in 2 of 4 layers" in text
    assert "rope_scaling is {" in text and "nanotron never applies" in text


def test_biases_that_are_zero_are_no_problem(tmp_path) -> None:
    config = tiny_qwen2_config(attention_bias=True)
    made = Checkpoint(write_tiny_checkpoint(tmp_path / "1", config))
    zeroed = {name: made.read(name) * (not name.endswith("bias")) for name in made.specs}
    found = inspect(Checkpoint(write_checkpoint(tmp_path / "2", zeroed, config)))
    assert not [one for one in found.findings if one.level == "problem"]


@pytest.mark.parametrize("tokens", [17, 24, 61])
def test_the_trace_ends_in_the_models_logits(checkpoint: Checkpoint, tokens: int) -> None:
    ids = torch.arange(tokens) % 96
    weights = load_weights(checkpoint)
    watched = [Watched(at, (3, 4)) for at in (tokens - 5, tokens - 1)]
    traces, _ = trace(weights, checkpoint, ids, 0, "rotary", watched)
    expected = naive_logits(weights, checkpoint.config, ids[None], memory="on", memory_query="rotary")[0]
    for at, traced in zip(watched, traces, strict=True):
        torch.testing.assert_close(traced.logits_V, expected[at.position], atol=1e-4, rtol=0)
        assert traced.layers[0].points[0] == 1 and traced.layers[0].points[-1] == at.position // 8


def traced_at_60(checkpoint: Checkpoint, tokens: tuple[int, ...] = (5, 6, 7)) -> tuple[Trace, Watched]:
    watched = Watched(60, tokens)
    return trace(load_weights(checkpoint), checkpoint, torch.arange(61) % 96, 2, "rotary", [watched])[0][0], watched


def test_direct_logits_add_up_to_the_models_own(checkpoint: Checkpoint) -> None:
    """The whole residual stream, put through the attribution, must give the logits themselves."""
    traced, _ = traced_at_60(checkpoint)
    torch.testing.assert_close(traced.direct_logits(traced.hidden_D), traced.logits_V, atol=1e-4, rtol=0)


def test_probe_is_linear_in_what_was_read(checkpoint: Checkpoint) -> None:
    traced, watched = traced_at_60(checkpoint)
    found = probe(traced, 2, watched, [], given=7)
    assert found.after == (0, 1, 2, 4)
    layer = traced.layers[1]
    vector = torch.einsum("nh,dnh->nd", layer.retrieved_PNH[-1], layer.out_weight_DNH)
    logits = traced.direct_logits(vector)
    expected = logits[:, 5] - logits[:, [6, 7]].mean(-1)
    torch.testing.assert_close(found.ungated[1, -1], expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.gated[1, -1], expected * layer.gate_N, atol=1e-5, rtol=1e-4)
    reads = [
        torch.einsum("nh,dnh,n->d", each.retrieved_PNH[-1], each.out_weight_DNH, each.gate_N) for each in traced.layers
    ]
    total = traced.direct_logits(torch.stack(reads).sum(0))
    assert found.against_given == pytest.approx((total[5] - total[7]).item(), abs=1e-4)


def test_no_query_reads_more_than_is_reachable() -> None:
    """Against many random positive feature vectors, and the row that attains the bound."""
    torch.manual_seed(0)
    memory, z, readout = torch.randn(3, 2, 4, 4), torch.rand(3, 2, 4) + 0.1, torch.randn(2, 4, 5)
    bound_PNS = reachable(memory, z, readout)
    features = torch.rand(4000, 2, 4) ** 8
    read = torch.einsum("cnh,pnhk->cpnk", features, memory) / torch.einsum("cnh,pnh->cpn", features, z)[..., None]
    logits = torch.einsum("cpnk,nks->cpns", read, readout)
    most = (logits - logits.mean(-1, keepdim=True)).amax(0)
    assert (most <= bound_PNS + 1e-5).all()
    assert (bound_PNS - most).max() < 0.2 * bound_PNS.abs().max()


def test_a_written_token_is_reachable_and_another_is_not() -> None:
    """One association, key 0 -> the direction of token 0: the best query finds it, and nothing for token 2."""
    memory = torch.zeros(1, 1, 2, 2)
    memory[0, 0, 0] = torch.tensor([3.0, 0.0])
    readout = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    found = reachable(memory, torch.ones(1, 1, 2), readout)[0, 0]
    assert found.tolist() == pytest.approx([2.0, 0.0, 0.0])


@pytest.mark.parametrize("tokens", [33, 40, 47])
def test_ablating_all_heads_at_the_question_equals_closing_their_reads(checkpoint: Checkpoint, tokens: int) -> None:
    """Against the naive forward: the question's segment recomputed with retrieved = 0 from its border on."""
    model = NativeModel.load(checkpoint, ModelSettings(device="cpu"))
    prompt, answer = np.arange(tokens) % 96, [5, 9, 11]
    found = head_effects(model, ask(model, prompt), answer)
    ids = torch.tensor([[*prompt.tolist(), *answer]])
    whole = model.logits(ids).log_softmax(-1)[0]
    expected = [whole[tokens - 1 + i, token].item() for i, token in enumerate(answer)]
    assert found.log_p_A.tolist() == pytest.approx(expected, abs=1e-3)
    assert found.by_head.shape == (4, 4) and found.by_layer.shape == (4,)
    assert found.without_A.sum().item() != pytest.approx(0, abs=1e-4)


def test_few_rows_at_once_change_nothing(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    model = NativeModel.load(checkpoint, ModelSettings(device="cpu"))
    question = ask(model, np.arange(45) % 96)
    together = head_effects(model, question, [5, 9]).by_head
    monkeypatch.setattr(ablation, "ROW_TOKENS", 20)
    torch.testing.assert_close(head_effects(model, question, [5, 9]).by_head, together, atol=1e-5, rtol=0)


def test_greedy_answers_with_every_head_are_the_models_own(checkpoint: Checkpoint) -> None:
    model = NativeModel.load(checkpoint, ModelSettings(device="cpu"))
    prompt = np.arange(46) % 96
    found = ablation.greedy_answers(model, ask(model, prompt), torch.ones(2, 4, 4), 5)
    assert found == [model.generate([prompt], 5, stop_ids=[])[0]] * 2


@pytest.mark.parametrize(
    ("given", "place"), [([1, 2, 3], None), ([1, 2, 3, 4], None), ([1, 9, 3], 1), ([1, 2], 2), ([], 0)]
)
def test_the_first_wrong_token(given: list[int], place: int | None) -> None:
    assert first_difference([1, 2, 3], given) == place


def test_contrast_never_holds_the_token_itself() -> None:
    answers = [[1, 2], [3, 2], [1, 4]]
    assert contrast(answers, 0, 1) == [3]
    assert contrast(answers, 5, 2) == [1, 3, 4]
    assert contrast([], 0, 0) == [1]


def test_health_is_looked_at_from_the_first_memory_to_the_question() -> None:
    assert points_along(1) == [1]
    assert points_along(7) == [1, 3, 4, 5, 7] and points_along(128) == [1, 33, 65, 96, 128]


def test_a_head_with_a_closed_gate_loses_nothing(tmp_path) -> None:
    checkpoint = set_gates(
        Checkpoint(write_tiny_checkpoint(tmp_path / "1", tiny_config(balance_act_type="hard_sigmoid"))), -3.0
    )
    model = NativeModel.load(checkpoint, ModelSettings(device="cpu"))
    found = head_effects(model, ask(model, np.arange(40) % 96), [5, 6])
    assert found.by_head.abs().max() < 1e-4 and found.without_A.abs().max() < 1e-4


@pytest.mark.parametrize("interleaved", [True, False])
def test_memories_are_those_of_the_equations(tmp_path, interleaved: bool) -> None:
    """In the checkpoint's order of features, at two borders, whatever order the engine keeps them in."""
    config = tiny_config(rope_interleaved=interleaved)
    checkpoint = Checkpoint(write_tiny_checkpoint(tmp_path / "1", config))
    model, weights = NativeModel.load(checkpoint, ModelSettings(device="cpu")), load_weights(checkpoint)
    ids = np.arange(40) % 96
    found = ablation.memories_at(model, ids, [16, 40])
    assert found.shape == (2, 4, 4, 8, 9)
    layer = {name.split("pp_block.")[1]: weight for name, weight in weights.items() if ".decoder.0." in name}
    embedded = weights["model.token_position_embeddings.pp_block.token_embedding.weight"][torch.from_numpy(ids)][None]
    normed, state = naive.rms_norm(embedded, layer["input_layernorm.weight"], 1e-5), None
    for number, segment in enumerate(normed.split(8, dim=1)):
        _, state = naive.one_segment(segment, state, layer, checkpoint.config, "on", "rotary")
        if number in (1, 4):
            point = found[(1, 4).index(number), 0]
            torch.testing.assert_close(point[..., :-1], state[0][0], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(point[..., -1], state[1][0], atol=1e-4, rtol=1e-4)


def test_gates_are_put_back_after_they_were_set(checkpoint: Checkpoint) -> None:
    model = NativeModel.load(checkpoint, ModelSettings(device="cpu"))
    ids = torch.arange(30)[None] % 96
    before = model.logits(ids)
    with ablation.all_gates_at(model.llama, 0.5):
        inside = model.logits(ids)
    assert torch.equal(model.logits(ids), before) and not torch.allclose(inside, before)
    half = NativeModel.load(set_gates(checkpoint, 0.0), ModelSettings(device="cpu"))
    torch.testing.assert_close(inside, half.logits(ids), atol=1e-4, rtol=1e-4)
