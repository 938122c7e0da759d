"""An Architecture from what follows --model: a preset, a checkpoint, or a Hugging Face config.json of any attention kind."""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infini_eval.errors import ConfigError, did_you_mean, similar_path
from infini_eval.foreign import as_number, as_whole, read_json_object, shown
from infini_eval.planning.architecture import Architecture, Attention, Layer


def preset_names() -> list[str]:
    """The names of the packaged configurations."""
    folder = importlib.resources.files("infini_eval.planning") / "presets"
    return sorted(entry.name.removesuffix(".json") for entry in folder.iterdir() if entry.name.endswith(".json"))


def read_architecture(model: str) -> Architecture:
    """A preset's name; a config.json or config.yaml; a folder with either; a nanotron checkpoint or its parent.

    Raises ConfigError or CheckpointError where there is no such model or it cannot be read.
    """
    if model in preset_names():
        folder = importlib.resources.files("infini_eval.planning") / "presets"
        return _from_json(Path(str(folder / f"{model}.json")), model)
    path = Path(model)
    if path.is_dir():
        return _from_folder(path)
    if path.is_file():
        return _from_file(path)
    raise ConfigError(
        f"no model {model!r}{did_you_mean(model, preset_names()) or similar_path(path)}",
        valid=f"a preset ({', '.join(preset_names())}), a Hugging Face config.json, a nanotron config.yaml, or a folder",
        next_step="for a model on the hub: hf download MODEL config.json --local-dir DIR, then --model DIR",
    )


def _from_folder(folder: Path) -> Architecture:
    if (folder / "config.json").is_file() and not (folder / "config.yaml").is_file():
        return _from_json(folder / "config.json", str(folder))
    from infini_eval.checkpoint.layout import find_step_folder

    return _from_file(find_step_folder(folder) / "config.yaml")


def _from_file(path: Path) -> Architecture:
    if path.suffix == ".json":
        return _from_json(path, str(path))
    return _from_yaml(path, str(path))


def _from_yaml(path: Path, name: str) -> Architecture:
    from infini_eval.checkpoint.config_yaml import read_config_file
    from infini_eval.planning.architecture import from_model_config

    config, _ = read_config_file(path)
    return from_model_config(config, name)


def _from_json(path: Path, name: str) -> Architecture:
    document = read_json_object(path, ConfigError)
    model = document.get("model")
    if isinstance(model, dict) and "model_config" in model:  # nanotron's sections, written as JSON
        return _from_yaml(path, name)
    from infini_eval.planning.hf_config import from_hf_config

    return from_hf_config(document, name)


Kind = tuple[Attention, int | None]
WINDOW_BY_FLAG = ("qwen2", "qwen2_moe", "qwen3", "qwen3_moe")  # sliding_window counts only with use_sliding_window
INFINI = "infini_llama"  # a checkpoint that `infini-eval export --format hf` wrote
NAMES: dict[str, Attention] = {"full_attention": "full", "sliding_attention": "sliding", "chunked_attention": "chunked"}


def attention_kinds(text: Mapping[str, Any], layers: int) -> list[Kind]:
    """Kind and window of each layer, from `layer_types` where present, else from the older keys of each family."""
    family = str(text.get("model_type") or "")
    if family == INFINI:
        return [("infini", text["segment_length"])] * layers
    if text.get("kv_lora_rank"):
        return [("mla", None)] * layers
    window, chunk = text.get("sliding_window"), text.get("attention_chunk_size")
    named = text.get("layer_types")
    if named and len(named) == layers:
        windows = {"full": None, "sliding": window, "chunked": chunk}
        kinds = [NAMES.get(kind, "full") for kind in named]
        return [(kind, windows[kind]) if windows[kind] else ("full", None) for kind in kinds]
    if family.startswith("llama4") and chunk:
        return [("chunked", chunk) if rotary else ("full", None) for rotary in _rotary_layers(text, layers)]
    if not window or (family in WINDOW_BY_FLAG and not text.get("use_sliding_window")):
        return [("full", None)] * layers
    period = _full_every(text, family)
    first_sliding = int(text.get("max_window_layers") or 0) if family in WINDOW_BY_FLAG else 0
    return [
        ("sliding", window) if index >= first_sliding and (period is None or (index + 1) % period) else ("full", None)
        for index in range(layers)
    ]


def _rotary_layers(text: Mapping[str, Any], layers: int) -> list[bool]:
    """Llama 4: layers with rotary embeddings attend in chunks; the others (every 4th) see everything."""
    given = text.get("no_rope_layers")
    if given:
        return [bool(rotary) for rotary in given]
    step = int(text.get("no_rope_layer_interval") or 4)
    return [(index + 1) % step != 0 for index in range(layers)]


def _full_every(text: Mapping[str, Any], family: str) -> int | None:
    """Every how many layers one sees everything; None where all of them slide."""
    pattern = text.get("sliding_window_pattern")
    if pattern:
        return int(pattern)
    return 2 if family == "gemma2" else 6 if family.startswith("gemma3") else None


def vision_parameters(document: Mapping[str, Any]) -> int:
    """Parameters of Llama 4's vision tower and projector; other towers are counted as plain encoders; 0 without one."""
    vision = document.get("vision_config")
    if not isinstance(vision, Mapping) or not vision.get("hidden_size"):
        return 0
    _check_kinds(vision, "vision_config")
    width, inner = int(vision["hidden_size"]), int(vision.get("intermediate_size") or 4 * int(vision["hidden_size"]))
    patch, image = int(vision.get("patch_size") or 14), int(vision.get("image_size") or 336)
    attention = 4 * (width * width + width)
    mlp = 2 * width * inner + inner + width
    encoder = int(vision.get("num_hidden_layers") or 0) * (attention + mlp + 4 * width)
    patches = (image // patch) ** 2
    embeddings = 3 * patch * patch * width + (patches + 1) * width + width
    return encoder + embeddings + 4 * width + _adapter(document, vision)


def _adapter(document: Mapping[str, Any], vision: Mapping[str, Any]) -> int:
    """Llama 4's pixel-shuffle MLP and its projection into the text model."""
    if not vision.get("projector_input_dim"):
        return 0
    where = "vision_config"
    entry, result = (_whole(vision, key, where) for key in ("projector_input_dim", "projector_output_dim"))
    text = document.get("text_config")
    text = text if isinstance(text, Mapping) else document
    ratio = as_number(vision.get("pixel_shuffle_ratio") or 0.5, 1e-3, 1)
    if ratio is None:
        raise ConfigError(
            f"vision_config: pixel_shuffle_ratio is {shown(vision['pixel_shuffle_ratio'])}", valid="a number up to 1"
        )
    shuffled = int(vision["hidden_size"] / ratio**2)
    return (
        shuffled * entry
        + entry * result
        + int(vision.get("vision_output_dim") or result) * _whole(text, "hidden_size", where)
    )


# What a configuration may say, where it is read: whole numbers up to these, and lists of them or of names.
LARGEST = {
    "num_hidden_layers": 10_000,
    "max_window_layers": 10_000,
    "image_size": 1 << 20,
    "patch_size": 1 << 20,
    "hidden_size": 1 << 24,
    "intermediate_size": 1 << 28,
    "intermediate_size_mlp": 1 << 28,
    "moe_intermediate_size": 1 << 28,
    "shared_expert_intermediate_size": 1 << 28,
    "vocab_size": 1 << 28,
}
LARGEST |= dict.fromkeys(
    ("num_attention_heads", "num_key_value_heads", "head_dim", "num_local_experts", "num_experts", "n_routed_experts",
     "num_experts_per_tok", "n_shared_experts", "kv_lora_rank", "q_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim",
     "v_head_dim", "no_rope_layer_interval", "sliding_window_pattern", "interleave_moe_layer_step", "decoder_sparse_step",
     "first_k_dense_replace", "projector_input_dim", "projector_output_dim", "vision_output_dim"),
    1 << 20,
)  # fmt: skip
LARGEST |= dict.fromkeys(
    ("sliding_window", "attention_chunk_size", "max_position_embeddings", "segment_length"), 1 << 50
)
LISTS = ("layer_types", "no_rope_layers", "moe_layers", "mlp_only_layers")
FLAGS = ("tie_word_embeddings", "attention_bias", "use_sliding_window")


def _check_kinds(section: Mapping[str, Any], name: str) -> None:
    """Refuse values of other kinds and sizes than a model has, once for all that read them."""
    for key, most in LARGEST.items():
        value = section.get(key)
        if value is not None and as_whole(value, 0, most) is None:
            raise ConfigError(f"{name}: {key} is {shown(value)}", valid=f"a whole number up to {most:,}")
    for key in LISTS:
        value = section.get(key)
        if value is not None and not (isinstance(value, list) and all(isinstance(one, int | str) for one in value)):
            raise ConfigError(f"{name}: {key} is {shown(value)}", valid="a list with a number or a name for each layer")
    for key in FLAGS:
        if not isinstance(section.get(key), bool | None):
            raise ConfigError(f"{name}: {key} is {shown(section[key])}", valid="true or false")


NESTED = ("text_config", "llm_config", "language_config")
REQUIRED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
FOUR_NORMS = ("gemma2", "gemma3", "gemma3_text")
QKV_BIASES = ("qwen2", "qwen2_moe")
QK_NORMS = ("qwen3", "qwen3_moe", "gemma3", "gemma3_text")
COUNTED = {"llama", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "gemma", "gemma2", "gemma3"}
COUNTED |= {
    INFINI,
    "gemma3_text",
    "llama4",
    "llama4_text",
    "deepseek_v2",
    "deepseek_v3",
    "phi3",
}  # tested against transformers


def from_hf_config(document: Mapping[str, Any], name: str) -> Architecture:
    """The shape of a causal language model; ConfigError, naming the key, where the document cannot be one."""
    text = _text_part(document, name)
    _check_kinds(text, name)
    shape = _Shape(text, name)
    infini = shape.family == INFINI
    if infini:
        _whole(text, "segment_length", name)
    kinds = attention_kinds(text, shape.layers)
    layers = tuple(shape.layer(index, *kind) for index, kind in enumerate(kinds))
    embedding = shape.vocab * shape.hidden
    tied = bool(text.get("tie_word_embeddings", document.get("tie_word_embeddings", shape.family in TIED)))
    return Architecture(
        name=name,
        kind=shape.family,
        engine="transformers",
        hidden_size=shape.hidden,
        vocab_size=shape.vocab,
        num_heads=shape.heads,
        num_kv_heads=shape.kv_heads,
        head_dim=shape.width,
        layers=layers,
        dtype=_dtype(text, document),
        embedding_parameters=embedding,
        head_parameters=0 if tied else embedding,
        widest_mlp=shape.widest_mlp,
        expert_width=shape.expert_width if shape.experts else 0,
        num_experts=shape.experts,
        experts_per_token=shape.experts_per_token,
        moe="repeated" if shape.family.startswith("llama4") else "grouped",
        latent_width=shape.latent_width,
        vision_parameters=vision_parameters(document),
        max_positions=None if infini else text.get("max_position_embeddings"),
        keeps_memory=not infini or text.get("memory", "on") == "on",
        notes=_notes(document, shape.family),
    )


QUOTE = "'"
TIED = ("gemma", "gemma2", "gemma3", "gemma3_text")


class _Shape:
    """Sizes read from a text configuration, and the parameters that follow from them."""

    def __init__(self, text: Mapping[str, Any], name: str) -> None:
        self._text = text
        self.family = str(text.get("model_type") or "unknown")
        self.hidden, self.layers, self.heads, self.vocab = (_whole(text, key, name) for key in REQUIRED)
        self.kv_heads = int(text.get("num_key_value_heads") or self.heads)
        self.width = int(text.get("head_dim") or self.hidden // self.heads)
        self.experts = int(_first(text, "num_local_experts", "num_experts", "n_routed_experts") or 0)
        self.experts_per_token = int(text.get("num_experts_per_tok") or 0)
        dense = text.get("intermediate_size_mlp") if self.family.startswith("llama4") else text.get("intermediate_size")
        self.dense_width = int(dense or 0)
        self.expert_width = int(text.get("moe_intermediate_size") or text.get("intermediate_size") or 0)
        self.latent_width = 0
        if text.get("kv_lora_rank"):
            self.latent_width = int(text["kv_lora_rank"]) + _whole(text, "qk_rope_head_dim", name)
        if not (self.dense_width or self.experts):
            raise _missing(name, "intermediate_size")

    @property
    def shared_width(self) -> int:
        """Width of the experts that answer every token."""
        if self.family.startswith("llama4"):
            return self.expert_width
        own = self._text.get("shared_expert_intermediate_size")
        return int(own or int(self._text.get("n_shared_experts") or 0) * self.expert_width)

    @property
    def widest_mlp(self) -> int:
        return max(self.shared_width if self.experts else 0, self.dense_width if not self._all_sparse else 0)

    @property
    def _all_sparse(self) -> bool:
        return all(self.is_sparse(index) for index in range(self.layers))

    def is_sparse(self, index: int) -> bool:
        """Whether a layer has routed experts."""
        text = self._text
        if not self.experts:
            return False
        if self.family.startswith("llama4"):
            step = int(text.get("interleave_moe_layer_step") or 1)
            chosen = text.get("moe_layers")
            return index in chosen if chosen else (index + 1) % step == 0
        if text.get("first_k_dense_replace") is not None:
            return index >= int(text["first_k_dense_replace"])
        if index in (text.get("mlp_only_layers") or ()):
            return False
        return (index + 1) % int(text.get("decoder_sparse_step") or 1) == 0

    def layer(self, index: int, attention: Any, window: int | None) -> Layer:
        query, kv, other = self._attention()
        other += (4 if self.family in FOUR_NORMS else 2) * self.hidden
        common = {"attention": attention, "window": window, "query": query, "kv": kv}
        if not self.is_sparse(index):
            return Layer(**common, mlp=3 * self.hidden * self.dense_width, other=other)
        expert = 3 * self.hidden * self.expert_width
        router = self.experts * self.hidden
        if self.family == "qwen2_moe":
            router += self.hidden  # the gate of its shared expert
        if self.family == "deepseek_v3":
            router += self.experts  # the correction of its router's scores
        return Layer(
            **common,
            mlp=3 * self.hidden * self.shared_width,
            experts=self.experts * expert,
            active_experts=self.experts_per_token * expert,
            other=other + router,
        )

    def _attention(self) -> tuple[int, int, int]:
        """Parameters of q and o, of k and v, and of biases and norms inside attention."""
        if self.latent_width:
            return self._latent_attention()
        heads, kv, hidden, width = self.heads, self.kv_heads, self.hidden, self.width
        other = 0
        if self.family in QKV_BIASES or self._text.get("attention_bias"):
            other += (heads + 2 * kv) * width
            other += hidden if self.family not in QKV_BIASES else 0
        if self.family in QK_NORMS:
            other += 2 * width
        if self.family == INFINI:
            other += heads  # gates
        return 2 * heads * width * hidden, 2 * kv * width * hidden, other

    def _latent_attention(self) -> tuple[int, int, int]:
        text, heads, hidden = self._text, self.heads, self.hidden
        rank, rope = int(text["kv_lora_rank"]), _whole(text, "qk_rope_head_dim", self.family)
        nope, value = (_whole(text, key, self.family) for key in ("qk_nope_head_dim", "v_head_dim"))
        low = int(text.get("q_lora_rank") or 0)
        query = hidden * low + low * heads * (nope + rope) if low else hidden * heads * (nope + rope)
        kv = hidden * (rank + rope) + rank * heads * (nope + value)
        return query + heads * value * hidden, kv, rank + low


def _text_part(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    nested = next((document[key] for key in NESTED if isinstance(document.get(key), Mapping)), None)
    text = document if nested is None else nested
    missing = [key for key in REQUIRED if not text.get(key)]
    if missing:
        raise _missing(name, missing[0])
    return text


def _notes(document: Mapping[str, Any], family: str) -> tuple[str, ...]:
    notes = []
    if family not in COUNTED:
        notes.append(f"model_type {shown(family)} is counted as a Llama-like decoder; compare with its published size")
    if quantization := document.get("quantization_config"):
        method = quantization.get("quant_method", "unknown") if isinstance(quantization, dict) else quantization
        notes.append(f"the checkpoint is quantised ({shown(method).strip(QUOTE)}): name it with --quantization")
    return tuple(notes)


def _dtype(text: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    found = _first(text, "dtype", "torch_dtype") or _first(document, "dtype", "torch_dtype") or "bfloat16"
    return str(found).removeprefix("torch.")


def _first(section: Mapping[str, Any], *keys: str) -> Any:
    return next((section[key] for key in keys if section.get(key) is not None), None)


def _whole(text: Mapping[str, Any], key: str, name: str) -> int:
    value = as_whole(text.get(key), 1, LARGEST[key])
    if value is None:
        raise ConfigError(
            f"{name}: {key} is {shown(text.get(key))}", valid=f"a whole number from 1 to {LARGEST[key]:,}"
        )
    return value


def _missing(name: str, key: str) -> ConfigError:
    return ConfigError(
        f"{name} has no {key}",
        valid="the config.json of a causal language model of Hugging Face, or nanotron's config.yaml",
    )
