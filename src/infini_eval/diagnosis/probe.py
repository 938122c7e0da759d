"""The retrieval probe: how strongly what memory returns points at the answer's token, when, and for whose query.

Direct logit attribution of one position that predicts a token of the answer: what a head's memory returns there, through
its slice of o_proj, the final norm and the head, adds to the logit of that token above the mean of the tokens of other
answers. Asked of the memory right after the needle was written, some segments later, and as the question reads it, with
the question's own query; and what the best of all possible queries could get ("reachable"), above what it could get for
tokens that are not in the needle. What later layers make of it is not seen; the ablations measure that.

Legend: P points in time, N query heads, S tokens compared.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch

from infini_eval.diagnosis.health import share_of_mix
from infini_eval.diagnosis.trace import Trace, Watched


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
