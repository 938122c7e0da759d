"""The reader: every saved topology gives the same weights, slices alone are read, and each damage has its own error."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from infini_eval.checkpoint.layout import EMBEDDING, LM_HEAD
from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.checkpoint.writer import write_checkpoint
from infini_eval.errors import CheckpointError
from infini_eval.testing.tiny_models import tiny_config, write_tiny_checkpoint
from support.shared_material import shared_path

QKV = "model.decoder.1.pp_block.attn.qkv_proj.weight"


@pytest.fixture
def step(tmp_path) -> Path:
    return write_tiny_checkpoint(tmp_path / "run" / "10", tp=2, pp=2)


def edit_config(step: Path, change) -> None:
    document = yaml.safe_load((step / "config.yaml").read_text())
    change(document)
    (step / "config.yaml").write_text(yaml.safe_dump(document))


def shard_files(step: Path, part: str) -> list[Path]:
    return sorted(step.glob(f"model/**/{part}/*.safetensors"))


def resave(path: Path, tensor: torch.Tensor | None = None, **metadata: str) -> None:
    from safetensors import safe_open

    with safe_open(path, "pt") as handle:
        kept = handle.metadata() or {}
    save_file({"data": load_file(path)["data"] if tensor is None else tensor}, path, metadata=kept | metadata)


@pytest.mark.parametrize("variant", ["nanotron/mha", "nanotron/gqa_neox", "nanotron-main/llama_gqa"])
def test_all_topologies_of_a_fixture_hold_the_same_weights(variant: str) -> None:
    checkpoints = [Checkpoint(path) for path in sorted(shared_path("fixtures", *variant.split("/")).glob("tp*"))]
    assert len(checkpoints) > 1
    for name in checkpoints[0].specs:
        for other in checkpoints[1:]:
            assert torch.equal(checkpoints[0].read(name), other.read(name))


@settings(max_examples=15, deadline=None)
@given(
    tp=st.sampled_from([1, 2, 4]), pp=st.sampled_from([1, 2, 3, 4]), kv=st.sampled_from([None, 4]), tied=st.booleans()
)
def test_what_is_written_is_read(tmp_path_factory, tp: int, pp: int, kv: int | None, tied: bool) -> None:
    config = tiny_config(num_key_value_heads=kv, tie_word_embeddings=tied)
    one = Checkpoint(write_tiny_checkpoint(tmp_path_factory.mktemp("one") / "1", config))
    parameters = {name: one.read(name) for name in one.specs}
    other = Checkpoint(write_checkpoint(tmp_path_factory.mktemp("other") / "1", parameters, config, tp=tp, pp=pp))
    assert (other.saved_tp, other.saved_pp) == (tp, pp)
    assert (LM_HEAD in other.specs) is not tied
    for name, tensor in parameters.items():
        assert torch.equal(other.read(name), tensor)


@settings(max_examples=30, deadline=None)
@given(data=st.data(), saved=st.sampled_from([1, 2, 4]))
def test_ranges_equal_slices_of_the_whole(tmp_path_factory, data, saved: int) -> None:
    checkpoint = Checkpoint(write_tiny_checkpoint(tmp_path_factory.mktemp("c") / "1", tp=saved))
    for name in (QKV, "model.decoder.0.pp_block.attn.o_proj.weight", EMBEDDING):
        spec, whole = checkpoint.specs[name], checkpoint.read(name)
        edges = sorted(
            data.draw(st.lists(st.integers(0, spec.shape[spec.shard_dim]), min_size=4, max_size=4, unique=True))
        )
        ranges = [(edges[0], edges[1]), (edges[2], edges[3])]
        expected = torch.cat([whole.narrow(spec.shard_dim, a, b - a) for a, b in ranges], spec.shard_dim)
        assert torch.equal(checkpoint.read(name, ranges), expected)


def test_latest_txt_leads_to_the_step(step: Path) -> None:
    assert Checkpoint(step.parent).folder == step
    (step.parent / "latest.txt").write_text("99")
    with pytest.raises(CheckpointError, match="names '99'"):
        Checkpoint(step.parent)


def test_training_state_is_ignored_and_never_unpickled(step: Path) -> None:
    for name in ("optimizer/optimizer_pp-0-of-1.pt", "random/tp-0.pt", "lr_scheduler/lr_scheduler.pt"):
        (step / name).parent.mkdir()
        (step / name).write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    assert Checkpoint(step).read(QKV).shape == (96, 32)


def test_numpy_2_shapes_and_doubled_file_names_are_read(step: Path) -> None:
    expected = Checkpoint(step).read(QKV)
    for path in shard_files(step, "1/pp_block/attn/qkv_proj"):
        resave(path, unsharded_shape="(np.int64(96), 32)", version="1.5")
        path.rename(path.with_name(path.name.replace("model_weight", "model_model_weight.safetensors")))
    assert torch.equal(Checkpoint(step).read(QKV), expected)


def test_absent_rope_keys_take_the_writers_defaults_and_say_so(step: Path) -> None:
    (step / "model_config.json").unlink()
    edit_config(step, lambda d: [d["model"]["model_config"].pop(k) for k in ("rope_theta", "rope_interleaved")])
    checkpoint = Checkpoint(step)
    assert (checkpoint.config.rope_theta, checkpoint.config.rope_interleaved) == (10000.0, True)
    assert len(checkpoint.notes) == 2 and "rope_interleaved" in checkpoint.notes[1]


@pytest.mark.parametrize(("written", "meant"), [("tanh", "orig_tanh"), ("sigmoid", "orig_sigmoid")])
def test_the_guides_names_of_gates_are_taken_and_said_once(step: Path, written: str, meant: str) -> None:
    edit_config(step, lambda d: d["infini_attention"].update(balance_act_type=written))
    checkpoint = Checkpoint(step)
    assert checkpoint.config.gate_activation == meant
    assert [note for note in checkpoint.notes if f"{written!r} is taken as {meant!r}" in note] == checkpoint.notes


def model_keys(**changes):
    return lambda d: d["model"]["model_config"].update(changes)


CONFIG_DAMAGE = {
    "unknown gate": (lambda d: d["infini_attention"].update(balance_act_type="relu"), "unknown gate.*'relu'"),
    "no segment length": (lambda d: d["infini_attention"].pop("segment_length"), "segment_length is missing"),
    "no section": (lambda d: d.pop("infini_attention"), "has gates .*no infini_attention section"),
    "other architecture": (model_keys(is_qwen2_config=True), "unknown architecture.*is_qwen2_config"),
    "starcoder": (model_keys(is_llama_config=False, is_starcoder2_config=True), "is_starcoder2_config"),
    "at odds with model_config.json": (model_keys(rope_theta=5.0), "disagree: rope_theta is 5.0"),
    "wrong type": (model_keys(hidden_size="wide"), "hidden_size"),
    "dtype": (lambda d: d["model"].update(dtype="int8"), "model.dtype is 'int8'"),
    "no model section": (lambda d: d.pop("model"), "no section model.model_config"),
    "query": (lambda d: d["infini_attention"].update(memory_query="both"), "memory_query is 'both'"),
}


@pytest.mark.parametrize("damage", CONFIG_DAMAGE)
def test_damaged_configuration(step: Path, damage: str) -> None:
    change, message = CONFIG_DAMAGE[damage]
    edit_config(step, change)
    with pytest.raises(CheckpointError, match=message) as caught:
        Checkpoint(step)
    assert str(step) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (model_keys(hidden_size=64), r"belongs to a tensor of shape \(96, 32\).*\(96, 64\)"),
        (model_keys(num_hidden_layers=5), "decoder.4.*"),
        (model_keys(num_hidden_layers=3), "does not account for.*decoder/3"),
        (model_keys(tie_word_embeddings=True), "does not account for.*lm_head"),
    ],
)
def test_configuration_at_odds_with_the_weights(step: Path, change, message: str) -> None:
    edit_config(step, change)
    (step / "model_config.json").unlink()
    with pytest.raises(CheckpointError, match=message):
        Checkpoint(step)


def test_unsafe_yaml_is_not_executed(step: Path, tmp_path) -> None:
    (step / "config.yaml").write_text(f"!!python/object/apply:os.mkdir ['{tmp_path / 'pwned'}']")
    with pytest.raises(CheckpointError, match="unsafe or unknown YAML tag"):
        Checkpoint(step)
    assert not (tmp_path / "pwned").exists()


def test_missing_configuration(step: Path) -> None:
    (step / "config.yaml").unlink()
    with pytest.raises(CheckpointError, match=r"no config\.yaml; segment_length"):
        Checkpoint(step)


def test_pickle_only_folder(tmp_path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="only pickled files"):
        Checkpoint(tmp_path)


def test_pickled_weights_beside_a_configuration(step: Path) -> None:
    shutil.rmtree(step / "model")
    (step / "model").mkdir()
    (step / "model" / "weights.pt").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="only pickled files"):
        Checkpoint(step)


def test_missing_shard(step: Path) -> None:
    shard_files(step, "1/pp_block/attn/qkv_proj")[1].unlink()
    with pytest.raises(CheckpointError, match=r"missing shard of .*qkv_proj.* lacks tp-rank 1 of 2"):
        Checkpoint(step)


def test_missing_gate(step: Path) -> None:
    for path in step.glob("model/**/1/pp_block/attn/model_balance_factors*"):
        path.unlink()
    with pytest.raises(CheckpointError, match=r"gate missing: .*decoder\.1"):
        Checkpoint(step)


def test_slices_that_do_not_tile(step: Path) -> None:
    first, second = shard_files(step, "1/pp_block/mlp/down_proj")
    from safetensors import safe_open

    with safe_open(first, "pt") as handle:
        pairs = handle.metadata()["local_global_slices_pairs"]
    resave(second, local_global_slices_pairs=pairs)
    with pytest.raises(CheckpointError, match=r"do not tile it.*twice"):
        Checkpoint(step)


def test_truncated_file(step: Path) -> None:
    path = shard_files(step, "1/pp_block/attn/o_proj")[0]
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match="truncated or corrupt weight file") as caught:
        Checkpoint(step)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("where", ["checkpoint_metadata.json", "shard"])
def test_newer_version(step: Path, where: str) -> None:
    if where == "shard":
        resave(shard_files(step, "0/pp_block/attn/o_proj")[0], version="1.6")
    else:
        (step / where).write_text(json.dumps({"version": "1.6", "tp": 2, "dp": 1}))
    with pytest.raises(CheckpointError, match=r"version '1\.6'(.|\n)*1\.2 to 1\.5"):
        Checkpoint(step)


def test_shard_without_metadata(step: Path) -> None:
    path = shard_files(step, "0/pp_block/attn/o_proj")[0]
    save_file(load_file(path), path)
    with pytest.raises(CheckpointError, match="without slice metadata"):
        Checkpoint(step)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_in_weights(step: Path, value: float) -> None:
    path = shard_files(step, "1/pp_block/attn/qkv_proj")[0]
    tensor = load_file(path)["data"]
    tensor[3, 5] = value
    resave(path, tensor)
    with pytest.raises(CheckpointError, match=r"1 of 3072 values of .*qkv_proj.* NaN or infinite"):
        Checkpoint(step).read(QKV)


def test_files_of_two_topologies(step: Path) -> None:
    path = shard_files(step, "1/pp_block/attn/qkv_proj")[0]
    shutil.copy(path, path.with_name("model_weight_pp-rank-0-of-1_tp-rank-0-of-1.safetensors"))
    with pytest.raises(CheckpointError, match="mixes files of several topologies"):
        Checkpoint(step)


def test_stray_weight_file(step: Path) -> None:
    path = shard_files(step, "1/pp_block/attn/qkv_proj")[0]
    shutil.copy(path, path.with_name("weights.safetensors"))
    with pytest.raises(CheckpointError, match="unexpected file among the weights"):
        Checkpoint(step)


def test_fingerprint_changes_with_a_weight(step: Path) -> None:
    before = Checkpoint(step).fingerprint()
    assert before == Checkpoint(step).fingerprint()
    path = shard_files(step, "1/pp_block/attn/qkv_proj")[0]
    resave(path, load_file(path)["data"] + 1)
    assert Checkpoint(step).fingerprint() != before


def test_parameter_count_is_that_of_the_files() -> None:
    checkpoint = Checkpoint(shared_path("fixtures", "nanotron", "tied", "tp2_pp2"))
    assert checkpoint.config.parameter_count == sum(checkpoint.read(name).numel() for name in checkpoint.specs)
