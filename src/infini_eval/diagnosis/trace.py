"""Follows one prompt through the model in fp32 and keeps what the memory held, when, and what the question read.

Written on `models/naive`, equation by equation: a diagnosis must not share the fast path's shortcuts. Batch 1.

Legend: T tokens, D model width, N query heads, H head width, V vocabulary, L segment length, P points kept, S tokens
compared, K tokens whose keys are kept.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch

from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.config import MemoryQuery, ModelConfig
from infini_eval.diagnosis.health import SegmentHealth, segment_health, share_of_mix
from infini_eval.models import naive
from infini_eval.models.naive import MemoryState, Weights


@dataclass(frozen=True)
class Probe:
    """One position. `after`: segments folded since the needle's, for each point (the last point is the question's memory).

    gated: [layers][points][heads] logits through the gate; ungated: the same without it. reachable: [points] what the
    best queries could get, without the gate, summed over heads. share: [layers][heads] part of memory in the mix.
    against_given: what enters the residual stream for the answer's token above the token that the model gave instead;
    overturns: what the best queries could get through the gates, less the logits by which the token given leads. None
    where it gave the right one.
    """

    after: tuple[int, ...]
    gated: torch.Tensor
    ungated: torch.Tensor
    reachable: torch.Tensor
    share: torch.Tensor
    against_given: float | None
    overturns: float | None

    @property
    def written(self) -> float:
        """What the question's query gets right after the needle was written, without the gate."""
        return self.ungated[:, 0].sum().item()

    @property
    def held(self) -> float:
        """What it gets from the memory that the question reads, without the gate."""
        return self.ungated[:, -1].sum().item()

    @property
    def read(self) -> float:
        """Sum over heads of what really enters the residual stream at the question."""
        return self.gated[:, -1].sum().item()


def probe(
    traced: Trace, needle_segment: int, watched: Watched, in_needle: Collection[int], given: int | None = None
) -> Probe:
    """Measure one traced position whose needle lies in an earlier segment.

    in_needle: tokens of the needle's answer, which are no measure of what chance reaches. given: a wrong token given.
    """
    token, *others = watched.tokens
    tokens = [token, token if given is None else given, *others]
    absent = [place for place, other in enumerate(watched.tokens) if other not in in_needle and place]
    absent = absent or list(range(1, len(watched.tokens)))
    gated, ungated, reachable, share = [], [], [], []
    instead = could = 0.0
    for layer in traced.layers:
        read_PND = torch.einsum("pnh,dnh->pnd", layer.retrieved_PNH, layer.out_weight_DNH)
        logits_PNV = traced.direct_logits(read_PND, tokens)
        margin_PN = logits_PNV[..., 0] - logits_PNV[..., 2:].mean(-1)
        ungated.append(margin_PN)
        gated.append(margin_PN * layer.gate_N)
        instead += ((logits_PNV[-1, :, 0] - logits_PNV[-1, :, 1]) * layer.gate_N).sum().item()
        by_chance_PN = layer.reachable_PNS[..., absent].mean(-1)
        best_PN = (layer.reachable_PNS[..., 0] - by_chance_PN) * traced.scale
        reachable.append(best_PN.sum(-1))
        could += (best_PN[-1] * layer.gate_N).sum().item()
        share.append(share_of_mix(layer.gate_N, layer.retrieved_PNH[-1], layer.local_NH))
    lead = 0.0 if given is None else (traced.logits_V[given] - traced.logits_V[token]).item()
    return Probe(
        after=tuple(point - 1 - needle_segment for point in traced.layers[0].points),
        gated=torch.stack(gated),
        ungated=torch.stack(ungated),
        reachable=torch.stack(reachable).sum(0),
        share=torch.stack(share),
        against_given=None if given is None else instead,
        overturns=None if given is None else could - lead,
    )


AFTER = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)  # segments after the needle's at which the memory is kept


@dataclass(frozen=True)
class Watched:
    """A position that predicts a token of the answer, and the tokens to compare: that one first, then others."""

    position: int
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class LayerTrace:
    """One layer at one watched position.

    points: number of segments folded into each kept memory (the last one is what the position really reads).
    retrieved_PNH: what the position's own query reads from each. reachable_PNS: the most that any query could read for
    each compared token, as a logit above the mean of all of them, before the final norm's scale. local_NH: the local
    attention's output. asked_NH: the features sigma(q) of its query. keys_KNH: the features sigma(k) of the tokens
    that `trace` was given.
    """

    points: tuple[int, ...]
    retrieved_PNH: torch.Tensor
    reachable_PNS: torch.Tensor
    local_NH: torch.Tensor
    asked_NH: torch.Tensor
    keys_KNH: torch.Tensor
    out_weight_DNH: torch.Tensor
    gate_N: torch.Tensor


@dataclass(frozen=True)
class Trace:
    """All layers at one watched position, its final hidden state [D] before the final norm, and its logits [V]."""

    layers: list[LayerTrace]
    hidden_D: torch.Tensor
    logits_V: torch.Tensor
    final_norm_D: torch.Tensor
    head_VD: torch.Tensor
    eps: float

    def direct_logits(self, vectors_D: torch.Tensor, tokens: Sequence[int] | None = None) -> torch.Tensor:
        """What vectors [..., D] in the residual stream add to the logits (of all or some tokens), final norm as it is."""
        head = self.head_VD if tokens is None else self.head_VD[list(tokens)]
        return (vectors_D * self.scale * self.final_norm_D) @ head.T

    @property
    def scale(self) -> float:
        """What the final norm multiplies this position's hidden state with."""
        return torch.rsqrt(self.hidden_D.pow(2).mean() + self.eps).item()


def load_weights(checkpoint: Checkpoint) -> Weights:
    """Every parameter in fp32 on the CPU."""
    return {name: checkpoint.read(name).float() for name in checkpoint.specs}


@torch.inference_mode()
def trace(
    weights: Weights,
    checkpoint: Checkpoint,
    ids_T: torch.Tensor,
    needle_segment: int,
    memory_query: MemoryQuery,
    watched: Sequence[Watched],
    health_at: Sequence[int] = (),
    keys_of: range = range(0),
) -> tuple[list[Trace], list[list[SegmentHealth]]]:
    """Run int64 `ids_T`; a Trace for each watched position, and each layer's health in the segments `health_at`.

    Memories are kept right after the needle's segment, some segments later, and as each watched position reads them.
    keys_of: tokens (the needle's) whose keys are kept.
    """
    config = checkpoint.config
    assert config.segment_length is not None
    embedding = weights["model.token_position_embeddings.pp_block.token_embedding.weight"]
    final_norm = weights["model.final_layer_norm.pp_block.weight"]
    head = weights.get("model.lm_head.pp_block.weight", embedding)
    readout = final_norm * head
    x_BTD = embedding[ids_T][None]
    by_layer, health = [], []
    for index in range(config.num_hidden_layers):
        prefix = f"model.decoder.{index}.pp_block."
        layer = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        normed = naive.rms_norm(x_BTD, layer["input_layernorm.weight"], config.rms_norm_eps)
        wanted = {needle_segment + after for after in AFTER}
        attended, states = _attention(normed, layer, config, memory_query)
        keys = _key_features(normed, layer, config, keys_of)
        by_layer.append(
            [_at(normed, states, wanted, layer, config, memory_query, item, readout, keys) for item in watched]
        )
        segments = normed.split(config.segment_length, dim=1)
        health.append([segment_health(segments[s], states[s], layer, config, memory_query, s) for s in health_at])
        x_BTD = x_BTD + attended
        x_BTD = x_BTD + naive.mlp(
            naive.rms_norm(x_BTD, layer["post_attention_layernorm.weight"], config.rms_norm_eps), layer
        )
    traces = []
    for number, item in enumerate(watched):
        hidden = x_BTD[0, item.position]
        logits = naive.rms_norm(hidden, final_norm, config.rms_norm_eps) @ head.T
        layers = [found[number] for found in by_layer]
        traces.append(Trace(layers, hidden, logits, final_norm, head, config.rms_norm_eps))
    return traces, health


def _attention(
    x_BTD: torch.Tensor, layer: Weights, config: ModelConfig, memory_query: MemoryQuery
) -> tuple[torch.Tensor, Mapping[int, MemoryState | None]]:
    """Attention of all segments, and the memory that each segment reads."""
    assert config.segment_length is not None
    outputs: list[torch.Tensor] = []
    states: dict[int, MemoryState | None] = {0: None}
    for index, segment in enumerate(x_BTD.split(config.segment_length, dim=1)):
        out_BNLH, states[index + 1] = naive.one_segment(segment, states[index], layer, config, "on", memory_query)
        outputs.append(out_BNLH.transpose(1, 2).flatten(2) @ layer["attn.o_proj.weight"].T)
    return torch.cat(outputs, dim=1), states


def _at(
    x_BTD: torch.Tensor,
    states: Mapping[int, MemoryState | None],
    wanted: set[int],
    layer: Weights,
    config: ModelConfig,
    memory_query: MemoryQuery,
    watched: Watched,
    readout_VD: torch.Tensor,
    keys_KNH: torch.Tensor,
) -> LayerTrace:
    """What the watched position's query reads from each kept memory, and what any query could."""
    assert config.segment_length is not None
    segment, offset = divmod(watched.position, config.segment_length)
    last = segment * config.segment_length
    q, k, v = naive.project(x_BTD[:, last : last + offset + 1], layer, config)
    q_rotated, k_rotated = naive.rope(q, config), naive.rope(k, config)
    local = (naive.causal_softmax(q_rotated, k_rotated, config.softmax_scale) @ v)[0, :, -1]
    points = sorted({index + 1 for index in wanted if index + 1 < segment} | {segment})
    kept = [state for state in (states[point] for point in points) if state is not None]
    memory_PNHH, z_PNH = (torch.stack([state[part][0] for state in kept]) for part in (0, 1))
    asked_NH = naive.feature_map(q_rotated if memory_query == "rotary" else q)[0, :, -1]
    out_DNH = layer["attn.o_proj.weight"].unflatten(1, asked_NH.shape)
    return LayerTrace(
        points=tuple(points),
        retrieved_PNH=_read(asked_NH, memory_PNHH, z_PNH),
        reachable_PNS=reachable(
            memory_PNHH, z_PNH, torch.einsum("sd,dnh->nhs", readout_VD[list(watched.tokens)], out_DNH)
        ),
        local_NH=local,
        asked_NH=asked_NH,
        keys_KNH=keys_KNH,
        out_weight_DNH=out_DNH,
        gate_N=naive.gate(layer["attn.balance_factors"], config.gate_activation),
    )


def _key_features(x_BTD: torch.Tensor, layer: Weights, config: ModelConfig, tokens: range) -> torch.Tensor:
    """sigma(k) [K, N, H] with which some tokens are written into the memory."""
    k_BNKH = naive.project(x_BTD[:, tokens.start : tokens.stop], layer, config)[1]
    return naive.feature_map(k_BNKH)[0].transpose(0, 1)


def _read(features_NH: torch.Tensor, memory_PNHH: torch.Tensor, z_PNH: torch.Tensor) -> torch.Tensor:
    return torch.einsum("nh,pnhk->pnk", features_NH, memory_PNHH) / (features_NH * z_PNH).sum(-1, keepdim=True)


def reachable(memory_PNHH: torch.Tensor, z_PNH: torch.Tensor, readout_NHS: torch.Tensor) -> torch.Tensor:
    """The most that any query can read in each of S directions above their mean, [P, N, S].

    Features are positive, so every read sum_i f_i M_i / sum_i f_i z_i is a weighted mean of the rows M_i / z_i: the best
    query takes the best row.
    """
    rows_PNHS = torch.einsum("pnhk,nks->pnhs", memory_PNHH / z_PNH[..., None], readout_NHS)
    return (rows_PNHS - rows_PNHS.mean(-1, keepdim=True)).amax(dim=2)
