"""A small random Llama in Hugging Face's layout, for tests of backends that load one or serve one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

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
