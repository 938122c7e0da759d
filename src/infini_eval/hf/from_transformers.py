"""From a Llama of transformers to a nanotron Infini checkpoint to continue training from: the same function while gates are shut.

Only what both compute exactly alike is taken (Llama 2 and 3.0, SmolLM, TinyLlama and their like); everything else is refused
with its reason. Weights are read file by file and tensor by tensor, and rows of q and k put into nanotron's interleaved order.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError, safe_open

from infini_eval.checkpoint.config_yaml import LARGEST, read_config_file
from infini_eval.checkpoint.layout import parameter_specs
from infini_eval.checkpoint.writer import write_checkpoint
from infini_eval.config import DTYPES, GATE_ACTIVATIONS, ModelConfig
from infini_eval.data.tokenizer import load_tokenizer
from infini_eval.errors import CheckpointError, ConfigError, in_one_line
from infini_eval.foreign import as_number, as_whole, read_json_object, shown
from infini_eval.hf.to_transformers import INDEX, Part, new_folder, parts, write_tokenizer
from infini_eval.models.attention import halves_to_interleaved
from infini_eval.models.load import TORCH_DTYPES
from infini_eval.models.naive import gate

STEP = "0"  # the step folder's name
FACTORS = "attn.balance_factors"
# Balance factors by name; a number is one too. What an activation reaches nowhere, or only without a gradient, is not there.
GATES: dict[str, dict[str, float]] = {
    "hard_sigmoid": {"closed": -2.5, "open": 2.5, "zeros": 0.0},
    "orig_sigmoid": {"zeros": 0.0},
    "orig_tanh": {"closed": 0.0, "zeros": 0.0},
    "tanh_abs": {"closed": 0.0, "zeros": 0.0},
}
FAMILIES = {
    "mistral": "its attention slides over a window",
    "mixtral": "it has experts",
    "qwen2": "its q, k and v have biases",
    "qwen3": "its q and k have norms",
    "gemma": "its embeddings are scaled and its norms shifted",
    "gemma2": "it caps logits and has four norms a layer",
    "gemma3_text": "its q and k have norms, and its attention slides over a window",
    "phi3": "its attention slides over a window, and its rotary embedding is scaled",
    "llama4_text": "it has experts, and attends in chunks",
    "smollm3": "some of its layers have no rotary embedding",
    "olmo2": "its q and k have norms",
    "infini_llama": "it is an exported Infini checkpoint already: train the nanotron checkpoint that it was made from",
}
VALID = "model_type llama as in Llama 2, Llama 3.0, SmolLM and TinyLlama: no biases, norms of q or k, scaled rotary, windows"


@dataclass(frozen=True)
class Imported:
    """What was written: the step folder, its parameters, the balance factor and the gate that it gives, what to know."""

    folder: Path
    parameters: int
    balance_factor: float
    gate: float
    notes: tuple[str, ...]


def import_model(
    source: Path,
    output: Path,
    *,
    segment_length: int,
    gate_init: str = "closed",
    gate_activation: str = "hard_sigmoid",
    dtype: str | None = None,
    tp: int = 1,
    pp: int = 1,
) -> Imported:
    """Write `output`/0, latest.txt and the tokenizer.

    Args:
        source: a folder with config.json, *.safetensors and tokenizer.json.
        output: a folder that is not there yet.
        segment_length: L, tokens of a segment.
        gate_init: every head's balance factor: a name in GATES, or a number.
        dtype: of the weights; None for the source's own.
        tp, pp: how the files are cut.

    Raises:
        ConfigError: a setting that cannot be used, or a model that the two do not compute exactly alike.
        CheckpointError, DataError: the folder cannot be read.
    """
    factor = balance_factor(gate_init, gate_activation)
    if as_whole(segment_length, 1, LARGEST["segment_length"]) is None:
        raise ConfigError(f"--segment-length {shown(segment_length)}", valid="a whole number of at least 1")
    document = read_json_object(_config_file(source), CheckpointError)
    refuse_what_is_not_exact(document, source)
    words = load_tokenizer(source)
    chosen = dtype or _dtype(document, source)
    content = _nanotron_config(document, source, segment_length, gate_activation, chosen)
    tensors = _Tensors(source, tied=content["model"]["model_config"]["tie_word_embeddings"])
    config = _checked_config(content, source)
    _check_tp(config, tp)
    tensors.check(config, source)
    place = new_folder(output)
    write_tokenizer(words, place / "tokenizer")
    folder = place / STEP
    write_checkpoint(folder, _Parameters(tensors, config, factor, chosen), content, tp=tp, pp=pp)
    weight = float(gate(torch.tensor(factor), gate_activation))
    notes = _notes(source, document, segment_length, weight, gate_activation)
    return Imported(folder, config.parameter_count, factor, weight, notes)


def balance_factor(gate_init: str, gate_activation: str) -> float:
    """The factor that a name or a number means; ConfigError for what that activation cannot give."""
    if gate_activation not in GATES:
        raise ConfigError(f"gate activation {shown(gate_activation)}", valid=", ".join(GATE_ACTIVATIONS))
    names = GATES[gate_activation]
    if gate_init in names:
        return names[gate_init]
    try:
        number = float(gate_init)
    except ValueError:
        number = math.nan
    if not abs(number) <= 100:
        raise ConfigError(
            f"--gate-init {gate_init}: not with {gate_activation}",
            valid=f"{', '.join(names)}, or a balance factor as a number (-100 to 100)",
        )
    return number


def refuse_what_is_not_exact(document: Mapping[str, Any], source: Path) -> None:
    """ConfigError, with its reason, for a configuration that nanotron's Llama does not compute exactly."""
    family = document.get("model_type")
    rope = _rope(document)
    kind = rope.get("rope_type", rope.get("type", "default"))
    heads = as_whole(document.get("num_attention_heads"), 1, 1 << 20) or 1
    width = (as_whole(document.get("hidden_size"), 1, 1 << 24) or 0) / heads
    reasons = {
        f"model_type is {shown(family)}: {FAMILIES.get(str(family), 'not a Llama')}": family != "llama",
        "it has biases of attention (attention_bias)": bool(document.get("attention_bias")),
        "it has biases of the MLP (mlp_bias)": bool(document.get("mlp_bias")),
        f"its rotary embedding is scaled (rope_scaling {shown(kind)}), which nanotron never applies": kind != "default",
        "only a part of each head is rotated": document.get("partial_rotary_factor") not in (None, 1, 1.0),
        "its attention slides over a window (sliding_window)": document.get("sliding_window") is not None,
        f"its activation is {shown(document.get('hidden_act'))}": document.get("hidden_act", "silu") != "silu",
        f"its heads are {document.get('head_dim')} wide, not hidden_size / num_attention_heads = {width:g}": (
            document.get("head_dim") not in (None, width)
        ),
        "its weights are quantised (quantization_config)": document.get("quantization_config") is not None,
    }
    found = [reason for reason, applies in reasons.items() if applies]
    if found:
        raise ConfigError(f"{source} cannot become a nanotron checkpoint exactly: {'; '.join(found)}", valid=VALID)


def _config_file(source: Path) -> Path:
    file = source / "config.json"
    if file.is_file():
        return file
    raise CheckpointError(
        f"{source} is no folder of a Hugging Face model: it has no config.json",
        valid="a folder with config.json, *.safetensors and tokenizer.json",
        next_step="hf download MODEL --local-dir DIR, then infini-eval import DIR",
    )


def _rope(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The section of the rotary embedding: rope_parameters, before transformers 5 rope_scaling."""
    found = document.get("rope_parameters") or document.get("rope_scaling") or {}
    if not isinstance(found, dict):
        raise CheckpointError(f"config.json: rope_parameters is {shown(found)}", valid="an object")
    return found


def _dtype(document: Mapping[str, Any], source: Path) -> str:
    found = document.get("dtype") or document.get("torch_dtype") or DTYPES[0]
    if found not in DTYPES:
        raise CheckpointError(f"{source}: config.json: dtype is {shown(found)}", valid=", ".join(DTYPES))
    return str(found)


def _nanotron_config(
    document: Mapping[str, Any], source: Path, segment_length: int, gate_activation: str, dtype: str
) -> dict[str, Any]:
    """The content of config.yaml; the sections that only a training run of nanotron needs are left to that run's own."""
    theta = as_number(_rope(document).get("rope_theta", document.get("rope_theta", 10_000.0)), 1e-30, 1e15)
    if theta is None:
        raise CheckpointError(f"{source}: config.json: rope_theta is not a number")
    same = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    model = {key: document.get(key) for key in (*same, "num_key_value_heads", "max_position_embeddings")}
    return {
        "general": {"project": "imported", "run": source.resolve().name, "seed": 1, "step": 0},
        "infini_attention": {
            "balance_act_type": gate_activation,
            "balance_init_type": "zeros",  # nanotron's key for new gates; the weights here are what counts
            "segment_length": segment_length,
            "turn_on_memory": True,
        },
        "model": {
            "dtype": dtype,
            "model_config": model
            | {
                "bos_token_id": _first_id(document, "bos_token_id"),
                "eos_token_id": _first_id(document, "eos_token_id"),
                "pad_token_id": _first_id(document, "pad_token_id"),
                "hidden_act": "silu",
                "initializer_range": document.get("initializer_range", 0.02),
                "is_llama_config": True,
                "pretraining_tp": 1,
                "rms_norm_eps": document.get("rms_norm_eps", 1e-6),
                "rope_interleaved": True,
                "rope_scaling": None,
                "rope_theta": theta,
                "tie_word_embeddings": bool(document.get("tie_word_embeddings", False)),
                "use_cache": True,
            },
        },
        "parallelism": {"dp": 1, "pp": 1, "tp": 1, "tp_mode": "ALL_REDUCE"},
        "tokenizer": {"tokenizer_name_or_path": "../tokenizer"},
        "tokens": {"sequence_length": document.get("max_position_embeddings")},
    }


def _first_id(document: Mapping[str, Any], key: str) -> Any:
    """A special token's id; chat models have several ends, nanotron one."""
    found = document.get(key)
    return found[0] if isinstance(found, list) and found else found


def _checked_config(content: Mapping[str, Any], source: Path) -> ModelConfig:
    """The configuration as the reader of checkpoints understands it, with its checks of every number."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(yaml.safe_dump(dict(content)))
        try:
            return read_config_file(file)[0]
        except CheckpointError as error:
            problem = error.problem.replace(str(file), str(source / "config.json")).replace("model.model_config.", "")
            raise CheckpointError(problem, valid=error.valid) from None


def _check_tp(config: ModelConfig, tp: int) -> None:
    for spec in parameter_specs(config).values():
        if any(chunk % tp for chunk in spec.chunks):
            raise ConfigError(f"--tp {tp} does not divide {spec.name} ({', '.join(map(str, spec.chunks))})")


class _Tensors:
    """The tensors of a folder by name, read one at a time; tied weights are not asked for twice."""

    def __init__(self, source: Path, *, tied: bool) -> None:
        self._tied = tied
        self._files = {name: source / file for name, file in _weight_map(source).items()}

    def check(self, config: ModelConfig, source: Path) -> None:
        """CheckpointError where a tensor is missing, of another shape, or nowhere to be put."""
        wanted = {part.name: part.shape for part in parts(config) if not part.source.endswith(FACTORS)}
        missing = sorted(wanted.keys() - self._files.keys())
        spare = {"lm_head.weight"} if self._tied else set()
        unknown = sorted(
            name for name in self._files.keys() - wanted.keys() - spare if not name.endswith("rotary_emb.inv_freq")
        )
        if missing or unknown:
            what = f"has no {missing[0]}" if missing else f"has {unknown[0]}, for which nanotron's Llama has no place"
            more = len(missing or unknown) - 1
            raise CheckpointError(f"{source} {what}" + (f" (and {more} more)" if more else ""), valid=VALID)
        for name, shape in wanted.items():
            with _open(self._files[name]) as handle:
                found = tuple(handle.get_slice(name).get_shape())
            if found != shape:
                raise CheckpointError(f"{self._files[name]}: {name} is {found}, config.json makes it {shape}")

    def read(self, name: str) -> torch.Tensor:
        with _open(self._files[name]) as handle:
            tensor: torch.Tensor = handle.get_tensor(name)
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{self._files[name]}: {name} holds NaN or infinity")
        return tensor


class _Parameters(Mapping[str, torch.Tensor]):
    """nanotron's parameters, each put together from the folder's tensors when it is asked for."""

    def __init__(self, tensors: _Tensors, config: ModelConfig, factor: float, dtype: str) -> None:
        self._tensors, self._config, self._factor, self._dtype = tensors, config, factor, TORCH_DTYPES[dtype]
        self._names = list(parameter_specs(config))
        self._parts: dict[str, list[Part]] = {}
        for part in parts(config):
            self._parts.setdefault(part.source, []).append(part)

    def __getitem__(self, name: str) -> torch.Tensor:
        if name.endswith(FACTORS):
            return torch.full((self._config.num_attention_heads,), self._factor, dtype=self._dtype)
        pieces = [self._piece(part) for part in self._parts[name]]
        return (pieces[0] if len(pieces) == 1 else torch.cat(pieces)).to(self._dtype)

    def _piece(self, part: Part) -> torch.Tensor:
        tensor = self._tensors.read(part.name)
        return halves_to_interleaved(tensor, self._config.head_dim) if part.reorder else tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _weight_map(source: Path) -> dict[str, str]:
    """Which file holds each tensor."""
    if (source / INDEX).is_file():
        found = read_json_object(source / INDEX, CheckpointError).get("weight_map")
        if not isinstance(found, dict) or not all(isinstance(file, str) and "/" not in file for file in found.values()):
            raise CheckpointError(f"{source / INDEX} has no weight_map of tensors and files")
        return found
    file = source / "model.safetensors"
    if not file.is_file():
        pickled = any(source.glob("*.bin"))
        raise CheckpointError(
            f"{source} has no model.safetensors"
            + (": its weights are pickles, which are never loaded" if pickled else ""),
            next_step="AutoModelForCausalLM.from_pretrained(MODEL).save_pretrained(FOLDER) writes it",
        )
    with _open(file) as handle:
        return dict.fromkeys(handle.keys(), file.name)


def _open(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file} cannot be read: {in_one_line(error, 200)}") from None


def _notes(
    source: Path, document: Mapping[str, Any], segment_length: int, weight: float, gate_activation: str
) -> tuple[str, ...]:
    trained = as_whole(document.get("max_position_embeddings"), 1, 1 << 40)
    notes = []
    if weight == 0:
        notes.append(
            f"gates are shut: inside the first segment ({segment_length} tokens) the logits are those of {source.name}, later "
            "segments see themselves alone; training opens the gates"
        )
    else:
        notes.append(
            f"gates start at {weight:.3g}: local attention is scaled by {1 - weight:.3g} from the first token on, so the logits "
            f"are not those of {source.name} (g = 0.5 moves them by several units), and training has to win that back"
        )
    if weight == 0 and gate_activation == "hard_sigmoid":
        notes.append(
            "a balance factor below -2.5 has no gradient: keep factors at -2.5 or above while training (or start with "
            "--gate-init -2.4, g = 0.02), and give them a learning rate of their own"
        )
    if trained and segment_length > trained:
        notes.append(
            f"segments of {segment_length} tokens are longer than the {trained} positions that {source.name} was trained on"
        )
    return tuple(notes)
