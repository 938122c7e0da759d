"""The three shapes whose cost is asked for: the 300M configuration, and Llama 3's 8B and 70B with Infini-Attention."""

from __future__ import annotations

from dataclasses import replace

from infini_eval.planning.architecture import Architecture
from infini_eval.planning.hf_config import read_architecture

SEGMENT = 1024
NAMES = {"300M": "infini-300m", "8B": "llama-3.1-8b", "70B": "llama-3.1-70b"}


def architecture(name: str) -> Architecture:
    """A name of NAMES, or whatever `infini-eval plan --model` takes; a plain Llama gets Infini-Attention with L = 1,024."""
    found = read_architecture(NAMES.get(name, name))
    if found.engine == "native":
        return found
    layers = tuple(
        replace(layer, attention="infini", window=SEGMENT, other=layer.other + found.num_heads)
        for layer in found.layers
    )
    return replace(found, name=name, kind="infini_llama", engine="native", layers=layers, max_positions=None)
