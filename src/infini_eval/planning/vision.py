"""Parameters of a vision tower: memory that a text prompt never uses but that is loaded all the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def vision_parameters(document: Mapping[str, Any]) -> int:
    """Parameters of Llama 4's vision tower and projector; other towers are counted as plain encoders; 0 without one."""
    vision = document.get("vision_config")
    if not isinstance(vision, Mapping) or not vision.get("hidden_size"):
        return 0
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
    entry, result = int(vision["projector_input_dim"]), int(vision["projector_output_dim"])
    text = document.get("text_config") or {}
    shuffled = int(vision["hidden_size"] / float(vision.get("pixel_shuffle_ratio") or 0.5) ** 2)
    return shuffled * entry + entry * result + int(vision.get("vision_output_dim") or result) * int(text["hidden_size"])
