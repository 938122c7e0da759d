"""From a nanotron checkpoint to a folder that transformers opens: weights, config.json, tokenizer, and its code if asked for.

An Infini checkpoint becomes `InfiniLlamaForCausalLM`, a plain one `LlamaForCausalLM`. Rows of q and k are put into the order
in which transformers rotates (halves); that reorders the memory's rows alike, so the function stays the same.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from infini_eval.checkpoint.layout import EMBEDDING, FINAL_NORM, LM_HEAD, layer_name
from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.config import ModelConfig
from infini_eval.data.tokenizer import Tokenizer, load_tokenizer
from infini_eval.errors import ConfigError, DataError
from infini_eval.hf.modeling_infini_llama import InfiniLlamaConfig
from infini_eval.models.attention import interleaved_to_halves
from infini_eval.models.load import TORCH_DTYPES

CODE = "modeling_infini_llama.py"
INDEX = "model.safetensors.index.json"
SUPPRESSED = 100_000  # rows of the vocabulary beyond the tokenizer that generation_config.json can name


@dataclass(frozen=True)
class Part:
    """A tensor of the folder: rows of one of the checkpoint's parameters.

    rows: the range of the first dim, None for all. reorder: q and k that are rotated interleaved.
    """

    name: str
    source: str
    shape: tuple[int, ...]
    rows: tuple[int, int] | None = None
    reorder: bool = False


def parts(config: ModelConfig) -> list[Part]:
    """Every tensor of the folder, in the model's order."""
    hidden, inter, table = config.hidden_size, config.intermediate_size, (config.vocab_size, config.hidden_size)
    found = [Part("model.embed_tokens.weight", EMBEDDING, table)]
    width, kv = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    for index in range(config.num_hidden_layers):
        ours, theirs = layer_name(index, ""), f"model.layers.{index}."
        qkv, gate_up = f"{ours}attn.qkv_proj.weight", f"{ours}mlp.gate_up_proj.weight"
        reorder = config.rope_interleaved
        found += [
            Part(f"{theirs}input_layernorm.weight", f"{ours}input_layernorm.weight", (hidden,)),
            Part(f"{theirs}self_attn.q_proj.weight", qkv, (width, hidden), (0, width), reorder),
            Part(f"{theirs}self_attn.k_proj.weight", qkv, (kv, hidden), (width, width + kv), reorder),
            Part(f"{theirs}self_attn.v_proj.weight", qkv, (kv, hidden), (width + kv, width + 2 * kv)),
            Part(f"{theirs}self_attn.o_proj.weight", f"{ours}attn.o_proj.weight", (hidden, width)),
            Part(f"{theirs}post_attention_layernorm.weight", f"{ours}post_attention_layernorm.weight", (hidden,)),
            Part(f"{theirs}mlp.gate_proj.weight", gate_up, (inter, hidden), (0, inter)),
            Part(f"{theirs}mlp.up_proj.weight", gate_up, (inter, hidden), (inter, 2 * inter)),
            Part(f"{theirs}mlp.down_proj.weight", f"{ours}mlp.down_proj.weight", (hidden, inter)),
        ]
        if config.has_segments:
            factors = f"{ours}attn.balance_factors"
            found.append(Part(f"{theirs}self_attn.balance_factors", factors, (config.num_attention_heads,)))
    found.append(Part("model.norm.weight", FINAL_NORM, (hidden,)))
    if not config.tie_word_embeddings:
        found.append(Part("lm_head.weight", LM_HEAD, table))
    return found


def export_checkpoint(
    checkpoint: Path,
    place: Path,
    *,
    tokenizer: str | None = None,
    dtype: str | None = None,
    shard_gb: float = 5.0,
    self_contained: bool = False,
) -> list[str]:
    """Write the folder; returns what was written, in words.

    Args:
        tokenizer: where the tokenizer lies, as evaluation takes it; None as the checkpoint says.
        dtype: of the weights; None for the checkpoint's own.
        shard_gb: the largest weight file, in gigabytes; beside it only one tensor is held.
        self_contained: copy the model's code into the folder, for `trust_remote_code=True` without this package.

    Raises:
        CheckpointError, DataError: the checkpoint or its tokenizer cannot be read.
        ConfigError: the place is taken, or the checkpoint has what transformers' Llama cannot compute.
    """
    opened = Checkpoint(checkpoint)
    config = opened.config
    _refuse(config, opened.folder)
    words = load_tokenizer(tokenizer) if tokenizer else load_tokenizer(config.tokenizer, opened.folder)
    if words.vocab_size > config.vocab_size:
        raise DataError(
            f"the tokenizer {words.name!r} has {words.vocab_size} tokens, the checkpoint's vocabulary {config.vocab_size}",
            next_step="pass the tokenizer that the model was trained with: --tokenizer FOLDER",
        )
    place = new_folder(place)
    chosen = dtype or config.dtype
    files = _write_weights(opened, place, chosen, shard_gb)
    write_tokenizer(words, place)
    _write_json(place / "generation_config.json", _generation_config(config, words))
    if self_contained and config.has_segments:
        shutil.copyfile(Path(__file__).with_name(CODE), place / CODE)
    _write_json(
        place / "config.json", _hf_config(config, words, chosen, self_contained)
    )  # last: it makes the folder a model
    return _said(place, config, chosen, files, self_contained)


def new_folder(place: Path) -> Path:
    """Make a folder that is not there yet, or is empty; ConfigError where something lies there."""
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise ConfigError(f"{place} is there already", valid="a folder that is new or empty: --output DIR")
    place.mkdir(parents=True, exist_ok=True)
    return place


def _refuse(config: ModelConfig, folder: Path) -> None:
    if config.kind not in ("infini_llama", "llama"):
        raise ConfigError(f"{folder} is of the kind {config.kind}", valid="a Llama, with or without Infini-Attention")
    if not config.has_segments and config.softmax_scale != config.head_dim**-0.5:
        raise ConfigError(
            f"{folder} was trained with muP: its softmax scale is 1 / {config.head_dim}, which transformers' Llama cannot have",
            valid="a checkpoint without muP, or one with Infini-Attention",
        )


def _shards(config: ModelConfig, itemsize: int, largest: float) -> list[list[Part]]:
    """Tensors in files of at most `largest` bytes, but one tensor at least."""
    files: list[list[Part]] = [[]]
    filled = 0
    for part in parts(config):
        size = math.prod(part.shape) * itemsize
        if files[-1] and filled + size > largest:
            files.append([])
            filled = 0
        files[-1].append(part)
        filled += size
    return files


def _write_weights(checkpoint: Checkpoint, place: Path, dtype: str, shard_gb: float) -> list[str]:
    """The weight files, and their index where there are several; returns their names."""
    torch_dtype = TORCH_DTYPES[dtype]
    shards = _shards(checkpoint.config, torch_dtype.itemsize, shard_gb * 1e9)
    count = len(shards)
    names = [f"model-{at + 1:05d}-of-{count:05d}.safetensors" for at in range(count)]
    names = ["model.safetensors"] if count == 1 else names
    for name, shard in zip(names, shards, strict=True):
        tensors = {part.name: tensor for part, tensor in _read(checkpoint, shard, torch_dtype)}
        save_file(tensors, place / name, metadata={"format": "pt"})
        (place / name).chmod(0o644)  # safetensors makes files that only their owner can read
    if count > 1:
        where = {part.name: name for name, shard in zip(names, shards, strict=True) for part in shard}
        total = sum(math.prod(part.shape) for shard in shards for part in shard) * torch_dtype.itemsize
        _write_json(place / INDEX, {"metadata": {"total_size": total}, "weight_map": where})
    return names


def _read(checkpoint: Checkpoint, shard: list[Part], dtype: torch.dtype) -> Iterator[tuple[Part, torch.Tensor]]:
    for part in shard:
        tensor = checkpoint.read(part.source, None if part.rows is None else [part.rows], dtype)
        if part.reorder:
            tensor = interleaved_to_halves(tensor, checkpoint.config.head_dim)
        yield part, tensor.contiguous()


def _hf_config(config: ModelConfig, words: Tokenizer, dtype: str, self_contained: bool) -> dict[str, Any]:
    """The content of config.json."""
    shape = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_position_embeddings,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "tie_word_embeddings": config.tie_word_embeddings,
        "attention_bias": False,
        "mlp_bias": False,
        "dtype": dtype,
        **_special_ids(words),
    }
    if not config.has_segments:
        return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", **shape}
    infini = {
        "segment_length": config.segment_length,
        "gate_activation": config.gate_activation,
        "memory": config.memory,
        "memory_query": config.memory_query,
        "softmax_scale": config.softmax_scale,
    }
    model = "InfiniLlamaForCausalLM"
    code = CODE.removesuffix(".py")
    auto = {"AutoConfig": InfiniLlamaConfig.__name__, "AutoModel": "InfiniLlamaModel", "AutoModelForCausalLM": model}
    return (
        {"architectures": [model], "model_type": InfiniLlamaConfig.model_type, **shape, **infini}
        # segments have no last position: what the memory holds ends no context
        | {"max_position_embeddings": max(config.max_position_embeddings, 1 << 20)}
        | ({"auto_map": {name: f"{code}.{found}" for name, found in auto.items()}} if self_contained else {})
    )


def _special_ids(words: Tokenizer) -> dict[str, int | None]:
    """The tokenizer's own ids: those in nanotron's configuration are another tokenizer's often enough.

    Padding is the end token: transformers then takes no token of a prompt for padding.
    """
    return {"bos_token_id": words.bos_id, "eos_token_id": words.eos_id, "pad_token_id": words.eos_id}


def _generation_config(config: ModelConfig, words: Tokenizer) -> dict[str, Any]:
    """generation_config.json: special ids, and the vocabulary's padding rows, which no tokenizer can decode."""
    beyond = range(words.vocab_size, config.vocab_size)
    suppressed = {"suppress_tokens": list(beyond)} if 0 < len(beyond) <= SUPPRESSED else {}
    return {key: value for key, value in _special_ids(words).items() if value is not None} | suppressed


def write_tokenizer(words: Tokenizer, place: Path) -> None:
    """Write tokenizer.json and its settings, as a class that transformers always has."""
    place.mkdir(parents=True, exist_ok=True)
    (place / "tokenizer.json").write_text(words.fast.to_str(), encoding="utf-8")
    settings = {name: value for name, value in words.settings.items() if name != "auto_map"}
    _write_json(place / "tokenizer_config.json", settings | {"tokenizer_class": "PreTrainedTokenizerFast"})


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _said(place: Path, config: ModelConfig, dtype: str, files: list[str], self_contained: bool) -> list[str]:
    kind = f"Infini-Attention of segments of {config.segment_length}" if config.has_segments else "a plain Llama"
    lines = [f"{place}: {kind}, {config.parameter_count:,} parameters in {dtype}, {len(files)} weight file(s)"]
    opening = f'AutoModelForCausalLM.from_pretrained("{place}"'
    if not config.has_segments:
        return [*lines, f"  open it:  transformers.{opening})"]
    lines.append(f"  open it:  import infini_eval.hf; transformers.{opening})")
    if self_contained:
        lines.append(f"  without infini_eval:  transformers.{opening}, trust_remote_code=True)")
    return lines
