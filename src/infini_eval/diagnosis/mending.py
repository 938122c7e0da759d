"""What would mend a wrong token: the question's segment computed again with one thing changed, and what is answered then.

Causes are told apart by what removes them: the memory as it was right after the needle, gates opened, the needle's own
keys as queries, no reads at all. On `models/naive`; nothing before the question's segment is computed again.

Legend: L layers, N query heads, G kv heads, H head width, E = H + 1 (M and z), T tokens of the segment, V vocabulary,
P points in time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.diagnosis.verdict import Share
from infini_eval.diagnosis.written import Told
from infini_eval.models import naive
from infini_eval.models.naive import Weights

OPEN = 0.5  # a gate that is opened: memory and local attention alike


@dataclass(frozen=True)
class Change:
    """What is otherwise in the question's segment: where `own_LN` the last position reads with the needle's key, where
    `open_LN` the gate is at least OPEN, `reads` False takes every read away; `point` is which memory is read."""

    own_LN: torch.Tensor | None = None
    open_LN: torch.Tensor | None = None
    reads: bool = True
    point: int = -1


def mended(weights: Weights, checkpoint: Checkpoint, cases: Sequence[tuple[Told, int]], change: Change) -> Share:
    """How many wrong tokens come out right after a change: each with its memory, and the token that would have been right."""
    given = [int(last_logits(weights, checkpoint, told, change).argmax()) for told, _ in cases]
    return Share(sum(each == token for each, (_, token) in zip(given, cases, strict=True)), len(cases))


@torch.inference_mode()
def last_logits(weights: Weights, checkpoint: Checkpoint, told: Told, change: Change) -> torch.Tensor:
    """Logits [V] at the question's position, its segment read again with the memory that the row had."""
    config = checkpoint.config
    embedding = weights["model.token_position_embeddings.pp_block.token_embedding.weight"]
    x_BTD = embedding[torch.from_numpy(told.ids.astype("int64"))][None]
    for index in range(config.num_hidden_layers):
        prefix = f"model.decoder.{index}.pp_block."
        layer = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        normed = naive.rms_norm(x_BTD, layer["input_layernorm.weight"], config.rms_norm_eps)
        x_BTD = x_BTD + _attention(normed, layer, checkpoint, told, change, index)
        normed = naive.rms_norm(x_BTD, layer["post_attention_layernorm.weight"], config.rms_norm_eps)
        x_BTD = x_BTD + naive.mlp(normed, layer)
    last_D = naive.rms_norm(x_BTD[0, -1], weights["model.final_layer_norm.pp_block.weight"], config.rms_norm_eps)
    return last_D @ weights.get("model.lm_head.pp_block.weight", embedding).T


def _attention(
    x_BTD: torch.Tensor, layer: Weights, checkpoint: Checkpoint, told: Told, change: Change, index: int
) -> torch.Tensor:
    config = checkpoint.config
    q, k, v = naive.project(x_BTD, layer, config)
    q_rotated, k_rotated = naive.rope(q, config), naive.rope(k, config)
    local_NTH = (naive.causal_softmax(q_rotated, k_rotated, config.softmax_scale) @ v)[0]
    asked_NTH = naive.feature_map(q_rotated if config.memory_query == "rotary" else q)[0]
    if change.own_LN is not None:
        own_N = change.own_LN[index]
        asked_NTH[own_N, -1] = told.own_LNH[index][own_N]
    memory_GHE = told.memory_PLGHE[change.point, index]
    sums = asked_NTH @ memory_GHE.repeat_interleave(len(asked_NTH) // len(memory_GHE), dim=0)
    read_NTH = sums[..., :-1] / sums[..., -1:]
    gate_N = naive.gate(layer["attn.balance_factors"], config.gate_activation)
    if change.open_LN is not None:
        gate_N = torch.where(change.open_LN[index], gate_N.clamp(min=OPEN), gate_N)
    g = gate_N[:, None, None]
    mixed = (g * read_NTH if change.reads else 0) + (1 - g) * local_NTH
    return mixed.transpose(0, 1).flatten(1)[None] @ layer["attn.o_proj.weight"].T
