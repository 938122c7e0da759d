"""Reads a checkpoint's config.yaml (safe loader, known keys only) and checks it against model_config.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from infini_eval.config import DTYPES, GATE_ACTIVATIONS, GATE_ALIASES, ModelConfig
from infini_eval.errors import CheckpointError, in_one_line
from infini_eval.foreign import read_json_object, read_text, shown

MOST_BYTES = 1 << 20  # of a configuration
MOST_VALUES = 100_000  # in it, aliases written out
# Above any model there is; what is larger would be allocated, or counted layer by layer.
LARGEST = {
    "hidden_size": 1 << 20,
    "intermediate_size": 1 << 24,
    "num_hidden_layers": 10_000,
    "num_attention_heads": 1 << 16,
    "num_key_value_heads": 1 << 16,
    "vocab_size": 1 << 26,
    "max_position_embeddings": 1 << 40,
    "segment_length": 1 << 40,
    "no_rope_layer": 1 << 20,
    "sliding_window_size": 1 << 40,
    "dp": 1 << 20,
    "tp": 1 << 20,
    "pp": 1 << 20,
}
SMALLEST_REAL, LARGEST_REAL = 1e-30, 1e15
# Keys of nanotron's Qwen2 that change what the model computes, each with the values that leave it as it is.
FUNCTION_CHANGING: dict[str, tuple[Any, ...]] = {
    "no_rope_layer": (0, False),
    "sliding_window_size": (0, -1, False),
    "rope_seq_len_interpolation_factor": (1,),
}
NEVER_APPLIED = ("rope_scaling",)  # nanotron keeps the key, and computes without it
DEFAULT_ROPE_THETA = 10000.0  # nanotron's, where the key is absent
# A saved Llama checkpoint without the key was written when it was hard-coded; Qwen2 has always had it.
LLAMA, QWEN2 = "is_llama_config", "is_qwen2_config"
DEFAULT_ROPE_INTERLEAVED = {LLAMA: True, QWEN2: False}


def read_config(folder: Path) -> tuple[ModelConfig, list[str]]:
    """Read the model's configuration, with notes worth showing (defaults that were taken).

    Raises:
        CheckpointError: the file is missing a value, unsafe, of another architecture, or at odds with model_config.json.
    """
    return read_config_file(folder / "config.yaml")


def read_config_file(path: Path) -> tuple[ModelConfig, list[str]]:
    """Read the same from a file of any name, such as a training configuration without a checkpoint."""
    document = _load_yaml(path)
    fields = _section(document, path, "model", "model_config")
    family = _family(fields, path)
    if family != QWEN2:
        _refuse_other_functions(fields, path)
    elif document.get("infini_attention") is not None:
        raise CheckpointError(
            f"{path} has {QWEN2} and an infini_attention section: no nanotron computes such a model",
            valid="Infini-Attention with is_llama_config, or a dense Qwen2 without the section",
        )
    _check_model_config_json(path.parent, fields, path)
    notes = _notes_of_ignored(document, fields, path, family)
    config = _build(document, fields, path, family, notes)
    _check_shape(config, path)
    return config, notes


def _load_yaml(path: Path) -> Mapping[str, Any]:
    text = read_text(path, CheckpointError, MOST_BYTES)
    try:
        document = yaml.safe_load(text)
    except yaml.constructor.ConstructorError as error:
        raise CheckpointError(
            f"unsafe or unknown YAML tag in {path}: {error.problem}",
            valid="plain YAML values; tags that build Python objects are never loaded",
            next_step="replace the tagged value by a plain one",
        ) from None
    except RecursionError:
        raise CheckpointError(f"{path} is nested too deeply to be a configuration") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none, a number of 5,000 digits
        raise CheckpointError(f"{path} is not valid YAML: {in_one_line(error, 300)}") from None
    if not isinstance(document, dict):
        raise CheckpointError(f"{path} is not a mapping of sections", valid="nanotron's config.yaml")
    if _size(document, {}) > MOST_VALUES:
        raise CheckpointError(
            f"{path} stands for more than {MOST_VALUES:,} values: its aliases repeat what they name",
            next_step="write the configuration without YAML aliases",
        )
    return document


def _size(value: Any, known: dict[int, float]) -> float:
    """How many values there are where each alias is written out; infinite where one holds itself."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = float("inf")
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_size(part, known) for part in parts)
    return known[id(value)]


def _section(document: Mapping[str, Any], path: Path, *keys: str) -> Mapping[str, Any]:
    value: Any = document
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} has no section {'.'.join(keys)}", valid="nanotron's config.yaml")
    return value


def _family(fields: Mapping[str, Any], path: Path) -> str:
    """The flag of the architecture: LLAMA (also where there is none) or QWEN2."""
    for key in (LLAMA, QWEN2):
        if not isinstance(fields.get(key, False), bool):
            raise CheckpointError(f"{path}: {key} is {shown(fields[key])}", valid="true or false")
    flags = [
        key for key, value in fields.items() if str(key).startswith("is_") and str(key).endswith("_config") and value
    ]
    if len(flags) > 1 or any(key not in (LLAMA, QWEN2) for key in flags) or fields.get("moe_config"):
        unknown = "moe_config" if fields.get("moe_config") else shown(" and ".join(map(str, flags)))
        raise CheckpointError(
            f"unknown architecture in {path}: {unknown}",
            valid="is_llama_config (dense Llama, with or without Infini-Attention) or is_qwen2_config (dense Qwen2)",
        )
    if not flags and fields.get(LLAMA) is False:
        raise CheckpointError(
            f"{path}: {LLAMA} is false, and no other architecture is named", valid=f"{LLAMA} or {QWEN2}"
        )
    return flags[0] if flags else LLAMA


def _refuse_other_functions(fields: Mapping[str, Any], path: Path) -> None:
    """Qwen2's keys in a Llama: training ignored them, or the flag was lost; at most with a value of no effect."""
    for key, without_effect in FUNCTION_CHANGING.items():
        if not _is_without_effect(fields.get(key), without_effect):
            raise CheckpointError(
                f"{path}: {key} is {shown(fields[key])}, which nanotron applies to Qwen2 only, and this is a Llama",
                valid="is_qwen2_config: true where it is a dense Qwen2; else leave the key out",
            )


def _is_without_effect(value: Any, without_effect: tuple[Any, ...]) -> bool:
    return value is None or any(value == none and type(value) in (type(none), float) for none in without_effect)


def _notes_of_ignored(document: Mapping[str, Any], fields: Mapping[str, Any], path: Path, family: str) -> list[str]:
    """What the configuration asks for and nanotron does not do, so that nothing here does it either."""
    ignored = {key: fields[key] for key in NEVER_APPLIED if fields.get(key)}
    if family == LLAMA and fields.get("attention_bias"):
        ignored["attention_bias"] = fields["attention_bias"]
    notes = [
        f"{path}: {key} is {shown(value)}, which nanotron never applies{' to a Llama' * (key not in NEVER_APPLIED)}: the "
        "model is computed without it, as it was trained"
        for key, value in ignored.items()
    ]
    if family == QWEN2 and _use_mup(document, path):
        notes.append(f"{path}: init_method.use_mup leaves the softmax scale of a Qwen2 at 1/sqrt(d), as nanotron does")
    return notes


def _use_mup(document: Mapping[str, Any], path: Path) -> bool:
    return bool(_part(_section(document, path, "model"), "init_method", path).get("use_mup", False))


def _check_model_config_json(folder: Path, fields: Mapping[str, Any], path: Path) -> None:
    """config.yaml is authoritative, but a model_config.json that says otherwise means that files were mixed up."""
    other_path = folder / "model_config.json"
    if not other_path.exists():
        return
    other = read_json_object(other_path, CheckpointError, MOST_BYTES)
    for key in fields.keys() & other.keys():
        if fields[key] != other[key]:
            raise CheckpointError(
                f"{path} and {other_path.name} disagree: {key} is {shown(fields[key])} there and {shown(other[key])} here",
                next_step="restore the pair that training wrote; config.yaml decides how the model is computed",
            )


def _build(
    document: Mapping[str, Any], fields: Mapping[str, Any], path: Path, family: str, notes: list[str]
) -> ModelConfig:
    number = _Numbers(fields, path)
    heads = number.whole("num_attention_heads")
    hidden = number.whole("hidden_size")
    infini = document.get("infini_attention")
    model = _section(document, path, "model")
    saved = _Numbers(_part(document, "parallelism", path), path, prefix="parallelism.")
    if fields.get("hidden_act", "silu") != "silu":
        raise CheckpointError(f"{path}: hidden_act is {shown(fields['hidden_act'])}", valid="silu")
    if heads < 1 or hidden % heads:
        raise CheckpointError(f"{path}: hidden_size {hidden} is not a multiple of num_attention_heads {heads}")
    head_dim, interleaved = hidden // heads, DEFAULT_ROPE_INTERLEAVED[family]
    mup = family == LLAMA and _use_mup(document, path)
    return ModelConfig(
        kind="qwen2" if family == QWEN2 else "llama" if infini is None else "infini_llama",
        hidden_size=hidden,
        intermediate_size=number.whole("intermediate_size"),
        num_hidden_layers=number.whole("num_hidden_layers"),
        num_attention_heads=heads,
        num_key_value_heads=number.whole("num_key_value_heads", default=heads),
        vocab_size=number.whole("vocab_size"),
        max_position_embeddings=number.whole("max_position_embeddings"),
        rms_norm_eps=number.real("rms_norm_eps"),
        rope_theta=_with_note(number.real, "rope_theta", DEFAULT_ROPE_THETA, fields, path, notes),
        rope_interleaved=_with_note(number.flag, "rope_interleaved", interleaved, fields, path, notes),
        tie_word_embeddings=number.flag("tie_word_embeddings", default=False),
        dtype=_dtype(model, path),
        softmax_scale=1 / head_dim if mup else head_dim**-0.5,
        bos_token_id=number.token_id("bos_token_id"),
        eos_token_id=number.token_id("eos_token_id"),
        tokenizer=_tokenizer(document, path),
        saved_dp=saved.whole("dp", default=1),
        saved_tp=saved.whole("tp", default=1),
        saved_pp=saved.whole("pp", default=1),
        **({} if infini is None else _infini_fields(infini, path, notes)),
        **(_qwen2_fields(fields, number) if family == QWEN2 else {}),
    )


def _qwen2_fields(fields: Mapping[str, Any], number: _Numbers) -> dict[str, Any]:
    """What makes the layers of a Qwen2 differ from a Llama's, where it has an effect."""
    neutral = {key for key, values in FUNCTION_CHANGING.items() if _is_without_effect(fields.get(key), values)}
    every, window, factor = FUNCTION_CHANGING
    return {
        "attention_bias": number.flag("attention_bias", default=False),
        "no_rope_layer": None if every in neutral else number.whole(every),
        "sliding_window": None if window in neutral else number.whole(window),
        "rope_interpolation": 1.0 if factor in neutral else number.real(factor),
    }


def _part(section: Mapping[str, Any], key: str, path: Path) -> Mapping[str, Any]:
    """A section that may be absent."""
    found = section.get(key) or {}
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: {key} is {shown(found)}", valid="a section")
    return found


def _tokenizer(document: Mapping[str, Any], path: Path) -> str | None:
    name = _part(document, "tokenizer", path).get("tokenizer_name_or_path")
    if name is not None and (not isinstance(name, str) or "\0" in name):
        raise CheckpointError(
            f"{path}: tokenizer.tokenizer_name_or_path is {shown(name)}", valid="a folder or a hub name"
        )
    return name


def _infini_fields(infini: Any, path: Path, notes: list[str]) -> dict[str, Any]:
    if not isinstance(infini, dict):
        raise CheckpointError(f"{path}: infini_attention is not a section")
    number = _Numbers(infini, path, prefix="infini_attention.")
    gate = infini.get("balance_act_type")
    if isinstance(gate, str) and gate in GATE_ALIASES:
        notes.append(f"{path}: infini_attention.balance_act_type {gate!r} is taken as {GATE_ALIASES[gate]!r}")
        gate = GATE_ALIASES[gate]
    if not isinstance(gate, str) or gate not in GATE_ACTIVATIONS:
        raise CheckpointError(
            f"{path}: unknown gate infini_attention.balance_act_type {shown(gate)}",
            valid=", ".join((*GATE_ACTIVATIONS, *GATE_ALIASES)),
        )
    query = infini.get("memory_query", "rotary")
    if query not in ("rotary", "plain"):
        raise CheckpointError(f"{path}: infini_attention.memory_query is {shown(query)}", valid="rotary, plain")
    return {
        "segment_length": number.whole("segment_length"),
        "gate_activation": gate,
        "memory": "on" if number.flag("turn_on_memory") else "off",
        "memory_query": query,
    }


def _dtype(model: Mapping[str, Any], path: Path) -> str:
    dtype = str(model.get("dtype", "")).removeprefix("torch.")
    if dtype not in DTYPES:
        raise CheckpointError(f"{path}: model.dtype is {shown(model.get('dtype'))}", valid=", ".join(DTYPES))
    return dtype


def _with_note(read: Any, key: str, default: Any, fields: Mapping[str, Any], path: Path, notes: list[str]) -> Any:
    if fields.get(key) is None:
        notes.append(f"{path} does not say {key}: taking {default}, as nanotron did when such files were written")
    return read(key, default=default)


def _check_shape(config: ModelConfig, path: Path) -> None:
    if config.head_dim % 2:
        raise CheckpointError(f"{path}: head width {config.head_dim} is odd; rotary embeddings need pairs")
    if config.num_attention_heads % config.num_key_value_heads:
        raise CheckpointError(
            f"{path}: num_attention_heads {config.num_attention_heads} is not a multiple of "
            f"num_key_value_heads {config.num_key_value_heads}"
        )


class _Numbers:
    """Reads typed values of one section; errors name the file and the key."""

    def __init__(self, fields: Mapping[str, Any], path: Path, prefix: str = "model.model_config.") -> None:
        self._fields, self._path, self._prefix = fields, path, prefix

    def whole(self, key: str, default: int | None = None) -> int:
        value, most = self._get(key, default), LARGEST[key]
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise self._error(key, value, f"a whole number from 1 to {most:,}")
        return value

    def token_id(self, key: str) -> int | None:
        value = self._get(key, None)
        if value is not None and (type(value) is not int or not -1 <= value <= LARGEST["vocab_size"]):
            raise self._error(key, value, "a token's number")
        return value

    def real(self, key: str, default: float | None = None) -> float:
        value = self._get(key, default)
        try:
            number = float(value)  # YAML reads 1e-5 (without a dot) as text
        except (TypeError, ValueError, OverflowError):
            raise self._error(key, value, "a number") from None
        if isinstance(value, bool) or not SMALLEST_REAL <= number <= LARGEST_REAL:
            raise self._error(key, value, f"a number from {SMALLEST_REAL:g} to {LARGEST_REAL:g}")
        return number

    def flag(self, key: str, default: bool | None = None) -> bool:
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self._error(key, value, "true or false")
        return value

    def _get(self, key: str, default: Any) -> Any:
        value = self._fields.get(key)
        return default if value is None else value

    def _error(self, key: str, value: Any, valid: str) -> CheckpointError:
        state = "is missing" if value is None else f"is {shown(value)}"
        return CheckpointError(f"{self._path}: {self._prefix}{key} {state}", valid=valid)
