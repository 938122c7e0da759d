"""A checkpoint's gates: the weight of memory against local attention, by layer and head."""

from __future__ import annotations

import torch

from infini_eval.checkpoint.layout import layer_name
from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.models.naive import gate


def balance_factors(checkpoint: Checkpoint) -> torch.Tensor:
    """The stored balance factors [layers, N] in their stored dtype; only for checkpoints with segments."""
    names = [layer_name(layer, "attn.balance_factors") for layer in range(checkpoint.config.num_hidden_layers)]
    return torch.stack([checkpoint.read(name) for name in names])


def gates(checkpoint: Checkpoint) -> torch.Tensor:
    """The gates [layers, N] in fp32: 0 is local attention only, 1 memory only (orig_tanh: may be negative)."""
    return gate(balance_factors(checkpoint).float(), checkpoint.config.gate_activation)
