"""Loading a Hugging Face model: from_pretrained's arguments, tensor parallelism, and refusals in plain words."""

from __future__ import annotations

import hashlib
import importlib
import re
from pathlib import Path
from typing import Any

import torch

from infini_eval.config import DTYPES, LoadSettings, ModelSettings, Topology
from infini_eval.distributed.mesh import MeshShape, ModelShape
from infini_eval.errors import BackendError, CheckpointError, ConfigError, TopologyError, in_one_line, similar_path
from infini_eval.foreign import parse_json
from infini_eval.packages import require

ATTENTION = {"sdpa": "sdpa", "flash_attn": "flash_attention_2", "eager": "eager", "flex": "flex_attention"}
SAMPLED_BYTES = 65536
DEVICE = re.compile(r"cpu|disk|mps|(cuda|xpu):\d+")
SIZE = re.compile(r"\d+(\.\d+)?\s?([KMGT]i?B)", re.IGNORECASE)


def read_config(path: str, trust_remote_code: bool) -> Any:
    """The model's config.json as transformers reads it; CheckpointError where there is none that it knows."""
    transformers = require("transformers", extra="transformers", purpose="the backend transformers")
    importlib.import_module("infini_eval.hf")  # transformers then opens exported Infini checkpoints
    try:
        return transformers.AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError) as error:
        if near := similar_path(path):
            raise CheckpointError(f"no model {path!r}{near}") from None
        reason = in_one_line(error, None)
        old = "does not recognize this architecture" in reason
        code = "trust_remote_code" in reason
        raise CheckpointError(
            f"{path!r} is no model that transformers {transformers.__version__} can open: {reason[:300]}",
            valid="a folder with config.json and *.safetensors, or a hub id that is reachable or cached",
            next_step="upgrade transformers"
            if old
            else "read its code, then pass --trust-remote-code"
            if code
            else None,
        ) from None


def model_name(path: str) -> str:
    """A hub id as it is, a folder by its last name."""
    return Path(path).resolve().name if Path(path).is_dir() else path


def fingerprint(path: str, commit: str | None) -> str:
    """The hub's commit, or sha256 over config.json and, for each weight file, its name, size and both ends (64 KiB)."""
    folder = Path(path)
    if not folder.is_dir():
        return commit or path
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for file in sorted(folder.glob("*.safetensors")):
        size = file.stat().st_size
        digest.update(f"{file.name}:{size};".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(SAMPLED_BYTES))
            stream.seek(max(0, size - SAMPLED_BYTES))
            digest.update(stream.read())
    return digest.hexdigest()


def skeleton(config: Any, trust_remote_code: bool) -> torch.nn.Module:
    """The model on the meta device: every shape, no memory."""
    import transformers

    with torch.device("meta"):
        model: torch.nn.Module = transformers.AutoModelForCausalLM.from_config(
            config, trust_remote_code=trust_remote_code
        )
    return model


def dtype_name(config: Any, asked: str | None) -> str:
    """The dtype asked for, else the checkpoint's, else float32."""
    own = getattr(config.get_text_config(), "dtype", None) or getattr(config, "dtype", None)
    return asked or (str(own).removeprefix("torch.") if own is not None else DTYPES[0])


def load(path: str, settings: ModelSettings, loading: LoadSettings, *, dtype: str, device: str, tp: int) -> Any:
    """The model with its weights, in evaluation mode, where it will compute."""
    import transformers

    arguments: dict[str, Any] = {
        "dtype": getattr(torch, dtype),
        "attn_implementation": ATTENTION[settings.attn_implementation],
        "trust_remote_code": loading.trust_remote_code,
        "use_safetensors": True,  # the other format is a pickle
    }
    if tp > 1:
        from transformers.distributed import DistributedConfig

        arguments["distributed_config"] = DistributedConfig(tp_plan="auto")
    else:
        arguments |= _placement(loading, device)
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(path, **arguments)
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise BackendError(
            f"transformers could not load {path!r}: {in_one_line(error)}",
            next_step=_remedy(str(error)),
        ) from None
    placed = tp > 1 or "device_map" in arguments
    return (model if placed else model.to(device)).eval()


def _placement(loading: LoadSettings, device: str) -> dict[str, Any]:
    """device_map and its companions; without any of them the whole model goes to this process's device."""
    arguments: dict[str, Any] = {}
    if loading.quantization:
        require("bitsandbytes", extra="bitsandbytes", purpose=f"--quantization {loading.quantization}")
        arguments["quantization_config"] = _quantization(loading.quantization)
    mapped = loading.device_map or ("auto" if loading.max_memory or loading.offload_folder else None)
    if mapped or loading.quantization:
        require("accelerate", extra="transformers", purpose="--device-map, --max-memory, --quantization")
        arguments["device_map"] = device_map(mapped) if mapped else {"": device}
    if loading.max_memory:
        arguments["max_memory"] = max_memory(loading.max_memory, torch.cuda.device_count())
    if loading.offload_folder:
        arguments["offload_folder"] = loading.offload_folder
    return arguments


def device_map(text: str) -> str | dict[str, int | str]:
    """--device-map for from_pretrained: accelerate's own word, or the mapping of module to device in a JSON file."""
    if not text.endswith(".json"):
        return text
    valid = (
        'a JSON object of modules and devices: {"model.embed_tokens": 0, "model.layers.0": "cpu", "lm_head": "disk"}'
    )
    try:
        found = parse_json(Path(text).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"--device-map {text} cannot be read: {error}", valid=valid) from None
    if not isinstance(found, dict) or not found:
        raise ConfigError(f"--device-map {text} holds no object", valid=valid)
    for module, device in found.items():
        if isinstance(device, bool) or not (isinstance(device, int) or DEVICE.fullmatch(str(device))):
            raise ConfigError(f"--device-map {text}: {module!r} is put on {device!r}", valid=valid)
    return found


def refuse_disk_without_folder(loading: LoadSettings) -> None:
    """ConfigError where a device map puts modules on disk and no folder is named; also for a map that cannot be read."""
    found = device_map(loading.device_map) if loading.device_map else {}
    if isinstance(found, dict) and "disk" in found.values() and not loading.offload_folder:
        raise ConfigError(
            f"--device-map {loading.device_map} puts modules on disk", next_step="say where: --offload-folder DIR"
        )


def max_memory(text: str, gpus: int) -> dict[int | str, str]:
    """ "80GiB" for every GPU (the CPU where there is none), or "0=70GiB,1=70GiB,cpu=200GiB"."""
    given = [part.strip() for part in text.split(",")]
    pairs = [part.split("=", 1) for part in given] if "=" in text else [[str(i), given[0]] for i in range(gpus)]
    pairs = pairs or [["cpu", given[0]]]
    result: dict[int | str, str] = {}
    for pair in pairs:
        name, size = pair if len(pair) == 2 else ("", pair[0])
        if not (name.isdecimal() or name in ("cpu", "disk")) or not SIZE.fullmatch(size):
            raise ConfigError(f"--max-memory {text!r}", valid="80GiB, or 0=70GiB,1=70GiB,cpu=200GiB (sizes, not auto)")
        result[int(name) if name.isdecimal() else name] = size
    return result


def _quantization(kind: str) -> Any:
    from transformers import BitsAndBytesConfig

    if kind == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)


def _remedy(reason: str) -> str | None:
    if "safetensors" in reason:
        return "convert the weights once: AutoModelForCausalLM.from_pretrained(MODEL).save_pretrained(FOLDER)"
    if "flash" in reason.lower() or "attention" in reason.lower():
        return "choose another --attn-implementation: sdpa, eager, flex"
    return None


def mesh_shape(asked: Topology, loading: LoadSettings, config: Any, world_size: int) -> MeshShape:
    """dp replicas by default, or one replica over all processes where --tp asks for it; TopologyError for anything else."""
    tp = asked.tp or 1
    valid = f"with {world_size} processes: {MeshShape(dp=world_size)}" + (
        f"; {MeshShape(tp=world_size)}" if world_size > 1 else ""
    )
    if (asked.pp or 1) > 1:
        raise TopologyError(f"--pp {asked.pp}: the backend transformers has no pipeline over processes", valid=valid)
    if tp not in (1, world_size) or (asked.dp or world_size // tp) != world_size // tp:
        given = " ".join(f"--{axis} {size}" for axis, size in (("dp", asked.dp), ("tp", asked.tp)) if size is not None)
        raise TopologyError(
            f"{given} with {world_size} processes",
            valid=valid,
            next_step=f"torchrun --nproc_per_node={tp} ..." if tp > 1 else None,
        )
    spread = loading.device_map or loading.max_memory or loading.offload_folder
    if world_size > 1 and (spread or (tp > 1 and loading.quantization)):
        flags = "--device-map, --max-memory, --offload-folder" if spread else "--quantization with --tp"
        raise TopologyError(
            f"{flags}: they place one model from one process, but there are {world_size}",
            next_step="start one process, or leave these flags out and use --tp",
        )
    if tp > 1:
        _check_split(config.get_text_config(), tp, valid)
    return MeshShape(dp=world_size // tp, tp=tp)


def _check_split(text: Any, tp: int, valid: str) -> None:
    if not getattr(text, "base_model_tp_plan", None):
        raise TopologyError(f"--tp {tp}: transformers has no tensor-parallel plan for {text.model_type}", valid=valid)
    heads = text.num_attention_heads
    kv_heads = getattr(text, "num_key_value_heads", None) or heads
    problem = ModelShape(1, heads, kv_heads, text.vocab_size, text.intermediate_size).tp_problem(tp)
    if problem is None and kv_heads % tp:
        problem = f"tp={tp} does not divide the model's {kv_heads} kv heads, which transformers does not replicate"
    if problem is not None:
        raise TopologyError(problem, valid=valid)
