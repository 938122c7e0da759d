"""The retrieval probe: how strongly what memory returns for the question points at the answer, and when.

Direct logit attribution of one position, the one that predicts the answer's first token: what a head's memory returns
there, through its gate, its slice of o_proj and the head, adds to the logit of the answer's first token above the mean
of the other samples' first tokens. Asked of the memory right after the needle was written, some segments later, and as
the question reads it. What later layers make of it is not seen; the ablations measure that.

Legend: P points in time, N query heads, S samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from infini_eval.diagnosis.trace import Trace


@dataclass(frozen=True)
class Probe:
    """One sample. `after`: segments folded since the needle's, for each point (the last point is the question's memory).

    gated: [layers][points][heads] logits through the gate; ungated: the same without it. share: [layers][heads] part of
    memory in the mix, |g A| / (|g A| + |(1 - g) O_local|). The rest is the memory's health at each point.
    """

    after: tuple[int, ...]
    gated: torch.Tensor
    ungated: torch.Tensor
    share: torch.Tensor
    memory_norm: torch.Tensor
    z_norm: torch.Tensor
    denominator: torch.Tensor

    @property
    def written(self) -> float:
        """Sum over heads right after the needle was written, without the gate."""
        return self.ungated[:, 0].sum().item()

    @property
    def held(self) -> float:
        """Sum over heads in the memory that the question reads, without the gate."""
        return self.ungated[:, -1].sum().item()

    @property
    def read(self) -> float:
        """Sum over heads of what really enters the residual stream at the question."""
        return self.gated[:, -1].sum().item()


def probe(traced: Trace, needle_segment: int, answer_token: int, other_tokens: list[int]) -> Probe:
    """Measure one traced prompt whose needle lies in an earlier segment than its question."""
    gated, ungated, share = [], [], []
    for layer in traced.layers:
        written_PND = torch.einsum("pnh,dnh->pnd", layer.retrieved_PNH, layer.out_weight_DNH)
        logits_PNV = traced.direct_logits(written_PND)
        margin_PN = logits_PNV[..., answer_token] - logits_PNV[..., other_tokens].mean(-1)
        ungated.append(margin_PN)
        gated.append(margin_PN * layer.gate_N)
        memory = (layer.gate_N[:, None] * layer.retrieved_PNH[-1]).norm(dim=-1)
        local = ((1 - layer.gate_N)[:, None] * layer.local_NH).norm(dim=-1)
        share.append(memory / (memory + local).clamp(min=1e-30))
    first = traced.layers[0]
    return Probe(
        after=tuple(point - 1 - needle_segment for point in first.points),
        gated=torch.stack(gated),
        ungated=torch.stack(ungated),
        share=torch.stack(share),
        memory_norm=torch.stack([layer.memory_norm_PN for layer in traced.layers]),
        z_norm=torch.stack([layer.z_norm_PN for layer in traced.layers]),
        denominator=torch.stack([layer.denominator_PN for layer in traced.layers]),
    )
