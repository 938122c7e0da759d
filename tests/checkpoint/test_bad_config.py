"""config.yaml and its neighbours in odd shapes: one error each, whatever they hold; and keys that change the function."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from infini_eval.checkpoint.config_yaml import read_config
from infini_eval.checkpoint.layout import find_step_folder
from infini_eval.checkpoint.reader import _check_saved_version
from infini_eval.errors import CheckpointError

ROOT = Path(__file__).resolve().parents[2]
GOOD = yaml.safe_load((find_step_folder(ROOT / "checkpoints/infini-demo") / "config.yaml").read_text())
ODD = [
    "abc",
    [1],
    {"a": 1},
    float("nan"),
    float("inf"),
    -1,
    0,
    True,
    10**12,
    10**400,
    "1e400",
    "\x1b[31m",
    "x" * 100_000,
]
WHOLE = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
    "intermediate_size",
)


def config(folder: Path, change: Any = None, text: str | bytes | None = None) -> Path:
    found = json.loads(json.dumps(GOOD))
    if change is not None:
        change(found)
    if text is None:
        text = yaml.safe_dump(found)
    (folder / "config.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def refused(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_config(folder)
    assert len(str(caught.value)) < 1_000
    return str(caught.value)


def with_model(key: str, value: Any, *, flag: bool = True):
    def change(found: dict[str, Any]) -> None:
        fields = found["model"]["model_config"]
        fields[key] = value
        if not flag:
            fields.pop("is_llama_config", None)

    return change


@pytest.mark.parametrize("value", ODD, ids=[f"{value!a:.12}" for value in ODD])
@pytest.mark.parametrize("key", [*WHOLE, "max_position_embeddings", "rope_theta", "rms_norm_eps", "bos_token_id"])
def test_a_number_of_the_wrong_kind_or_size_is_refused(tmp_path, key, value) -> None:
    if (key, value) in (
        ("max_position_embeddings", 10**12),
        ("rope_theta", 10**12),
        ("bos_token_id", -1),
        ("bos_token_id", 0),
    ):
        return  # as large as that they may be
    if key in ("rope_theta", "rms_norm_eps") and value == 10**12:
        return
    assert key in refused(config(tmp_path, with_model(key, value)))


FUNCTION = [("no_rope_layer", 2), ("sliding_window_size", 128), ("rope_seq_len_interpolation_factor", 2.0)]


@pytest.mark.parametrize("flag", [True, False], ids=["with the flag", "without it"])
@pytest.mark.parametrize(("key", "value"), FUNCTION)
def test_keys_that_change_what_is_computed_are_refused_whatever_the_architecture_says(
    tmp_path, key, value, flag
) -> None:
    assert f"{key} is " in refused(config(tmp_path, with_model(key, value, flag=flag)))


@pytest.mark.parametrize(("key", "value"), [("rope_scaling", {"factor": 2.0}), ("attention_bias", True)])
def test_keys_that_nanotron_never_applies_are_noted(tmp_path, key, value) -> None:
    noted = [note for note in read_config(config(tmp_path, with_model(key, value)))[1] if key in note]
    assert len(noted) == 1 and "never applies" in noted[0]
    assert not [note for note in read_config(config(tmp_path, with_model(key, None)))[1] if key in note]


def qwen2(**changes: Any):
    def change(found: dict[str, Any]) -> None:
        fields = found["model"]["model_config"]
        del fields["is_llama_config"], found["infini_attention"]
        fields.update({"is_qwen2_config": True} | changes)

    return change


@pytest.mark.parametrize(("key", "value"), FUNCTION)
def test_of_a_qwen2_they_are_read(tmp_path, key, value) -> None:
    found, _ = read_config(config(tmp_path, qwen2(**{key: value})))
    read = (found.no_rope_layer, found.sliding_window, found.rope_interpolation)
    assert read == tuple(value if name == key else 1.0 if name.startswith("rope") else None for name, _ in FUNCTION)


@pytest.mark.parametrize("value", ["x", [2], {"a": 1}, float("nan"), float("inf"), -3, 10**400, True, "\x1b[31m"])
@pytest.mark.parametrize("key", [*(key for key, _ in FUNCTION), "rope_theta", "rms_norm_eps"])
def test_of_a_qwen2_they_are_numbers(tmp_path, key, value) -> None:
    assert key in refused(config(tmp_path, qwen2(**{key: value})))


@pytest.mark.parametrize("value", [0, -1, False, None])
@pytest.mark.parametrize("key", ["no_rope_layer", "sliding_window_size"])
def test_of_a_qwen2_they_may_be_without_effect(tmp_path, key, value) -> None:
    if (key, value) == ("no_rope_layer", -1):
        return
    found, _ = read_config(config(tmp_path, qwen2(**{key: value})))
    assert (found.no_rope_layer, found.sliding_window) == (None, None)


def test_a_qwen2_rotates_halves_unless_it_says_otherwise(tmp_path) -> None:
    def without_key(found: dict[str, Any]) -> None:
        qwen2()(found)
        del found["model"]["model_config"]["rope_interleaved"]

    found, notes = read_config(config(tmp_path, without_key))
    assert not found.rope_interleaved and any("rope_interleaved: taking False" in note for note in notes)
    assert read_config(config(tmp_path, qwen2(rope_interleaved=True)))[0].rope_interleaved


def test_a_qwen2s_softmax_scale_does_not_know_mup(tmp_path) -> None:
    def with_mup(found: dict[str, Any]) -> None:
        qwen2()(found)
        found["model"]["init_method"] = {"use_mup": True}

    found, notes = read_config(config(tmp_path, with_mup))
    assert found.softmax_scale == found.head_dim**-0.5 and any("use_mup" in note for note in notes)


OTHERS = {
    "a mixture of experts": (qwen2(moe_config={"num_experts": 4}), "unknown architecture.*moe_config"),
    "two architectures": (
        qwen2(is_llama_config=True),
        "is_llama_config and is_qwen2_config|is_qwen2_config and is_llama",
    ),
    "a flag that is none": (qwen2(is_qwen2_config="yes"), "is_qwen2_config is 'yes'"),
    "biases that are none": (qwen2(attention_bias="yes"), "attention_bias is 'yes'"),
    "no architecture": (with_model("is_llama_config", False), "no other architecture is named"),
    "segments": (
        lambda found: found["model"]["model_config"].update(is_llama_config=False, is_qwen2_config=True),
        "no nanotron computes such a model",
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_neither_llama_nor_dense_qwen2_is_one_error(tmp_path, kind) -> None:
    change, message = OTHERS[kind]
    assert re.search(message, refused(config(tmp_path, change)))


@pytest.mark.parametrize("key", [key for key, _ in FUNCTION])
def test_without_effect_they_are_read(tmp_path, key) -> None:
    neutral = 1.0 if key.startswith("rope") else None
    assert read_config(config(tmp_path, with_model(key, neutral)))[0].hidden_size > 0


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(12)
)
TEXTS = {
    "bomb": yaml.safe_dump(GOOD) + BOMB,
    "a bomb as a number": BOMB + "model: {model_config: {hidden_size: *m, num_attention_heads: 4}}\n",
    "recursive": "model: &m {model_config: *m}\n",
    "deep lists": "a: " + "[" * 5_000,
    "deep objects": "a: " + "{a: " * 3_000,
    "empty": "",
    "list": "[1]",
    "bytes": b"\xff\xfe\0\0",
    "NUL": "a: \0",
    "5,000 digits": yaml.safe_dump(GOOD) + "zz: " + "9" * 5_000,
    "no date": yaml.safe_dump(GOOD) + "zz: 2020-99-99",
    "unhashable": "? [a]\n: b\n? {a: b}\n: c",
    "2 MB": yaml.safe_dump(GOOD) + "zz: " + "x" * 2_000_000,
    "a number as a section": "model: 5",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_text_that_is_no_configuration_is_one_error(tmp_path, text) -> None:
    refused(config(tmp_path, text=text))


SECTIONS = ["parallelism", "tokenizer", "infini_attention", "model"]


@pytest.mark.parametrize("value", [5, "x", [1], True])
@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_that_is_none_is_refused(tmp_path, section, value) -> None:
    assert section in refused(config(tmp_path, lambda found: found.update({section: value})))


@pytest.mark.parametrize("value", ["x", [1], 10**30, -1, 1.5])
def test_a_saved_topology_that_is_none_is_refused(tmp_path, value) -> None:
    assert "parallelism.dp" in refused(config(tmp_path, lambda found: found.update(parallelism={"dp": value})))


@pytest.mark.parametrize("value", [5, [1], "a\0b"])
def test_a_tokenizer_that_is_no_name_is_refused(tmp_path, value) -> None:
    named = {"tokenizer_name_or_path": value}
    assert "tokenizer_name_or_path" in refused(config(tmp_path, lambda found: found.update(tokenizer=named)))


JSON = ["[1]", "null", "5", '"x"', "[" * 100_000, "\xff", "9" * 5_000, "", '{"hidden_size": "' + "x" * 100_000 + '"}']


@pytest.mark.parametrize("text", JSON, ids=[f"{text:.9}" for text in JSON])
def test_json_beside_it_in_odd_shapes_is_one_error(tmp_path, text) -> None:
    (tmp_path / "model_config.json").write_text(text, encoding="latin1")
    refused(config(tmp_path))
    (tmp_path / "checkpoint_metadata.json").write_text(text, encoding="latin1")
    with pytest.raises(CheckpointError) as caught:
        _check_saved_version(tmp_path)
    assert len(str(caught.value)) < 1_000


@pytest.mark.parametrize("text", ["\xff\xfe", "a\0b", "9" * 10_000, "../..", "1\n2", "\x1b[31m", "", "/"])
def test_a_latest_txt_that_names_no_checkpoint_is_one_error(tmp_path, text) -> None:
    (tmp_path / "latest.txt").write_text(text, encoding="latin1")
    with pytest.raises(CheckpointError) as caught:
        find_step_folder(tmp_path)
    assert len(str(caught.value)) < 1_000


def test_a_configuration_that_is_no_file_is_not_read(tmp_path) -> None:
    (tmp_path / "config.yaml").symlink_to("/dev/zero")
    assert "is not a file" in refused(tmp_path)
