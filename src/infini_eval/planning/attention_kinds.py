"""What each layer of a Hugging Face model keeps of the past: everything, a sliding window, or a chunk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infini_eval.planning.architecture import Attention

Kind = tuple[Attention, int | None]
WINDOW_BY_FLAG = ("qwen2", "qwen2_moe", "qwen3", "qwen3_moe")  # sliding_window counts only with use_sliding_window
NAMES: dict[str, Attention] = {"full_attention": "full", "sliding_attention": "sliding", "chunked_attention": "chunked"}


def attention_kinds(text: Mapping[str, Any], layers: int) -> list[Kind]:
    """Kind and window of each layer, from `layer_types` where present, else from the older keys of each family."""
    family = str(text.get("model_type") or "")
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
