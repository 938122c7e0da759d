"""Small random models in nanotron's and Hugging Face's layouts, and the peak of live tensors, for tests and demonstrations."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch

from infini_eval.checkpoint.config_yaml import read_config
from infini_eval.checkpoint.layout import parameter_specs
from infini_eval.checkpoint.writer import write_checkpoint


def peak_of_tensors(work: Callable[[], Any]) -> int:
    """The most bytes that torch's allocator for the CPU holds at once while `work` runs, beyond what it held before.

    Counted from the sizes that torch asks for, what an operation needs for itself included: neither malloc's holes and
    rounding nor pages and libraries show. torch's profiler tells them in its trace, in order of time.
    """
    import torch

    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profiler:
        work()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    changes = [event for event in events if event.get("name") == "[memory]" and event["args"]["Device Type"] == 0]
    changes.sort(key=lambda event: event["ts"])
    return int(max(accumulate((event["args"]["Bytes"] for event in changes), initial=0)))


CHAT_TEMPLATE = "{% for message in messages %}[user]{{ message['content'] | trim }}{% endfor %}[assistant]"


def write_tiny_hf_model(folder: Path, tokenizer: Path, *, seed: int = 0, chat: bool = False, **changes: Any) -> Path:
    """Write weights (large enough that answers differ), config and a copy of `tokenizer`; the same seed, the same weights."""
    import torch
    import transformers

    vocabulary = json.loads((tokenizer / "tokenizer.json").read_text())["model"]["vocab"]
    settings = {
        "vocab_size": len(vocabulary) + 16,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "initializer_range": 0.2,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**(settings | changes)))
    model.save_pretrained(folder)
    for file in tokenizer.glob("*.json"):
        shutil.copy(file, folder / file.name)
    if chat:
        (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    return folder


def tiny_config(*, infini: bool = True, **changes: Any) -> dict[str, Any]:
    """The content of a config.yaml; `changes` replace keys of model_config, or of infini_attention where they belong."""
    model_config = {
        "is_llama_config": True,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "vocab_size": 96,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "rope_interleaved": True,
        "tie_word_embeddings": False,
        "hidden_act": "silu",
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    section = {"segment_length": 8, "turn_on_memory": True, "balance_act_type": "orig_sigmoid"}
    for key, value in changes.items():
        (section if key in section or key == "memory_query" else model_config)[key] = value
    config: dict[str, Any] = {
        "general": {"step": 1, "project": "tiny", "run": "tiny"},
        "model": {"dtype": "float32", "model_config": model_config},
        "parallelism": {"dp": 1, "tp": 1, "pp": 1},
        "tokenizer": {"tokenizer_name_or_path": None},
    }
    return config | ({"infini_attention": section} if infini else {})


def tiny_qwen2_config(**changes: Any) -> dict[str, Any]:
    """The same of a dense Qwen2 of nanotron's main branch; `changes` replace keys of model_config."""
    config = tiny_config(infini=False, **({"rope_interleaved": False} | changes))
    fields = config["model"]["model_config"]
    del fields["is_llama_config"]
    fields["is_qwen2_config"] = True
    return config


def write_tiny_checkpoint(
    folder: Path, config: dict[str, Any] | None = None, *, seed: int = 0, tp: int = 1, pp: int = 1
) -> Path:
    """Write random weights (large enough that answers differ) for `config` to `folder`; the same seed, the same weights."""
    config = tiny_config() if config is None else config
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(_dump(config))
    model_config, _ = read_config(folder)
    generator = torch.Generator().manual_seed(seed)
    parameters = {}
    for name, spec in parameter_specs(model_config).items():
        noise = torch.randn(spec.shape, generator=generator)
        parameters[name] = 1 + 0.1 * noise if "norm" in name else noise * (0.5 if "balance" in name else 0.15)
    return write_checkpoint(folder, parameters, config, tp=tp, pp=pp)


def _dump(config: dict[str, Any]) -> str:
    import yaml

    return str(yaml.safe_dump(config))
