"""A Llama imported as an Infini checkpoint: its own function while gates are shut, and a reason where that cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import infini_eval
from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.cli.main import main
from infini_eval.config import ModelSettings
from infini_eval.engine.native_model import NativeModel
from infini_eval.errors import CheckpointError, ConfigError, InfiniEvalError
from infini_eval.testing.tiny_models import write_tiny_hf_model

ROOT = Path(__file__).resolve().parents[2]
TOKENIZER = ROOT / "checkpoints/infini-demo/tokenizer"
DEMO = ROOT / "checkpoints/llama-demo"
MODELS = {
    "mha": {"num_key_value_heads": 4},
    "gqa": {"rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0}},
    "tied": {"tie_word_embeddings": True, "rms_norm_eps": 1e-5},
}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_hf_model(tmp_path_factory.mktemp("llama"), TOKENIZER)


def theirs(folder: Path, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return transformers.AutoModelForCausalLM.from_pretrained(folder).eval()(ids).logits


def ours(checkpoint: Path, ids: torch.Tensor) -> torch.Tensor:
    return NativeModel.load(Checkpoint(checkpoint), ModelSettings(device="cpu")).logits(ids)


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_the_sources_inside_the_first_segment(name: str, tmp_path: Path) -> None:
    source = write_tiny_hf_model(tmp_path / "hf", TOKENIZER, **MODELS[name])
    ids = torch.arange(48)[None] * 7 % 1000
    made = infini_eval.import_model(source, tmp_path / "out", segment_length=32, tp=2, pp=2)
    assert (made.balance_factor, made.gate, made.folder) == (-2.5, 0.0, tmp_path / "out" / "0")
    got, expected = ours(tmp_path / "out", ids), theirs(source, ids)
    torch.testing.assert_close(got[:, :32], expected[:, :32], atol=2e-5, rtol=0)
    assert (got[:, 32:] - expected[:, 32:]).abs().max() > 0.1  # the next segment sees itself alone


def test_the_trained_demo_keeps_its_logits_unless_gates_are_zeros(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = torch.randint(1, 1024, (2, 512), generator=torch.Generator().manual_seed(0))
    expected = theirs(DEMO, ids)
    moved = {}
    for init in ("closed", "zeros"):
        asked = ["import", str(DEMO), "--segment-length", "512", "--gate-init", init, "--output", str(tmp_path / init)]
        assert main(asked) == 0
        moved[init] = float((ours(tmp_path / init, ids) - expected).abs().max())
    said = capsys.readouterr().out
    assert "gates are shut: inside the first segment (512 tokens)" in said
    assert "gates start at 0.5: local attention is scaled by 0.5" in said
    assert moved["closed"] < 2e-4 and moved["zeros"] > 2


@pytest.mark.parametrize("shards", [False, True])
def test_import_and_export_give_the_same_weights_back(llama: Path, shards: bool, tmp_path: Path) -> None:
    source = llama
    if shards:
        source = tmp_path / "sharded"
        transformers.AutoModelForCausalLM.from_pretrained(llama).save_pretrained(source, max_shard_size="20KB")
        for file in TOKENIZER.glob("*.json"):
            (source / file.name).write_bytes(file.read_bytes())
        assert len(list(source.glob("*.safetensors"))) > 2
    infini_eval.import_model(source, tmp_path / "nanotron", segment_length=32, gate_init=0.5)
    infini_eval.export(tmp_path / "nanotron", format="hf", output=tmp_path / "back")
    before, after = load_file(llama / "model.safetensors"), load_file(tmp_path / "back" / "model.safetensors")
    gates = {name for name in after if name.endswith("balance_factors")}
    assert before.keys() == after.keys() - gates and len(gates) == 2
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(torch.equal(after[name], torch.full((4,), 0.5)) for name in gates)


def test_dtype_is_the_sources_or_the_one_asked_for(llama: Path, tmp_path: Path) -> None:
    assert infini_eval.import_model(llama, tmp_path / "a", segment_length=32).folder.name == "0"
    infini_eval.import_model(llama, tmp_path / "b", segment_length=32, dtype="bfloat16")
    assert [Checkpoint(tmp_path / name).stored_dtype for name in "ab"] == [torch.float32, torch.bfloat16]


REFUSED = [
    ({"attention_bias": True}, "biases of attention"),
    ({"mlp_bias": True}, "biases of the MLP"),
    ({"model_type": "qwen2"}, "its q, k and v have biases"),
    ({"model_type": "qwen3"}, "its q and k have norms"),
    ({"model_type": "mistral", "sliding_window": 8}, "slides over a window"),
    ({"model_type": "something"}, "not a Llama"),
    (
        {"rope_parameters": None, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
        "scaled (rope_scaling 'llama3')",
    ),
    ({"rope_parameters": {"rope_type": "linear", "factor": 2.0}}, "which nanotron never applies"),
    ({"head_dim": 16}, "heads are 16 wide"),
    ({"hidden_act": "gelu"}, "its activation is 'gelu'"),
    ({"quantization_config": {"quant_method": "awq"}}, "weights are quantised"),
    ({"partial_rotary_factor": 0.5}, "only a part of each head is rotated"),
]


@pytest.mark.parametrize(("changes", "reason"), REFUSED)
def test_what_is_not_exact_is_refused_with_its_reason(
    llama: Path, changes: dict[str, object], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "hf"
    source.mkdir()
    for file in llama.iterdir():
        (source / file.name).write_bytes(file.read_bytes())
    config = json.loads((llama / "config.json").read_text()) | changes
    (source / "config.json").write_text(json.dumps(config))
    assert main(["import", str(source), "--segment-length", "32", "--output", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert "cannot become a nanotron checkpoint exactly" in message and reason in message
    assert not (tmp_path / "out").exists()


def test_tensors_that_have_no_place_are_refused(llama: Path, tmp_path: Path) -> None:
    source = tmp_path / "hf"
    source.mkdir()
    for file in llama.iterdir():
        (source / file.name).write_bytes(file.read_bytes())
    tensors = load_file(llama / "model.safetensors")
    bias = {"model.layers.0.self_attn.q_proj.bias": torch.zeros(32)}
    save_file(tensors | bias, source / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"q_proj\.bias, for which nanotron's Llama has no place"):
        infini_eval.import_model(source, tmp_path / "out", segment_length=32)
    save_file({name: one for name, one in tensors.items() if name != "model.norm.weight"}, source / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"has no model\.norm\.weight"):
        infini_eval.import_model(source, tmp_path / "out", segment_length=32)
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="pickles, which are never loaded"):
        infini_eval.import_model(source, tmp_path / "out", segment_length=32)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": "wide", "head_dim": None}, "config.json: hidden_size is 'wide'"),
        ({"num_hidden_layers": 0}, "config.json: num_hidden_layers is 0"),
        ({"rms_norm_eps": "tiny"}, "config.json: rms_norm_eps is 'tiny'"),
        ({"rope_parameters": [1]}, "rope_parameters is [1]"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": "x"}}, "rope_theta is not a number"),
        ({"dtype": "int4"}, "dtype is 'int4'"),
        ({"num_hidden_layers": 3}, "has no model.layers.2"),
        ({"intermediate_size": 40}, "config.json makes it (40, 32)"),
    ],
)
def test_a_configuration_of_wrong_values_is_one_error(
    llama: Path, changes: dict[str, object], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "hf"
    source.mkdir()
    for file in llama.iterdir():
        (source / file.name).symlink_to(file)
    (source / "config.json").unlink()
    config = json.loads((llama / "config.json").read_text()) | changes
    (source / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    assert main(["import", str(source), "--segment-length", "32", "--output", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_settings_that_cannot_be_are_refused(llama: Path, tmp_path: Path) -> None:
    def refused(**settings) -> str:
        with pytest.raises(InfiniEvalError) as found:
            infini_eval.import_model(llama, tmp_path / "out", **({"segment_length": 32} | settings))
        assert not (tmp_path / "out").exists()
        return str(found.value)

    assert "--gate-init shut: not with hard_sigmoid" in refused(gate_init="shut")
    assert "--gate-init closed: not with orig_sigmoid" in refused(gate_activation="orig_sigmoid")
    assert "gate activation 'relu'" in refused(gate_activation="relu")
    assert "--segment-length 0" in refused(segment_length=0)
    assert "--tp 3 does not divide" in refused(tp=3)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(ConfigError, match="taken is there already"):
        infini_eval.import_model(llama, tmp_path / "taken", segment_length=32)
    with pytest.raises(CheckpointError, match=r"it has no config\.json"):
        infini_eval.import_model(tmp_path / "none", tmp_path / "out", segment_length=32)


def test_gates_that_need_a_word_of_warning(llama: Path, tmp_path: Path) -> None:
    made = infini_eval.import_model(llama, tmp_path / "a", segment_length=8192, gate_activation="orig_tanh")
    assert made.gate == 0 and "longer than the 4096 positions" in made.notes[-1]
    assert not any("-2.5" in note for note in made.notes)
    assert infini_eval.import_model(llama, tmp_path / "b", segment_length=32, gate_init="-2.4").gate == pytest.approx(
        0.02
    )
