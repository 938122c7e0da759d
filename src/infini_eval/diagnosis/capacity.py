"""How long a context a checkpoint's memory bears: what the haystack adds to the question's reads, head by head.

A read is sum_t sigma(q).sigma(k_t) v_t over sum_t sigma(q).sigma(k_t): what a token weighs in it is sigma(q).sigma(k_t).
The needle's weight over that of one token of haystack is the number of tokens at which both are equal. How long the
answers hold is measured, not computed: the haystack's part of the memory is multiplied, as a longer stream of its kind
would make it, and the model answers. Both need prompts of some segments only.

Legend: B prompts, T tokens, N query heads, H head width, L segment length, S segments, A answer tokens, P points, G kv
heads, E = H + 1 (M and z).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from infini_eval.api.backend import WorkItem
from infini_eval.config import ModelConfig
from infini_eval.diagnosis.ablation import answers_from, raw_memories_at
from infini_eval.diagnosis.sample import Diagnoser
from infini_eval.diagnosis.verdict import Interval
from infini_eval.diagnosis.written import needle_segment_of
from infini_eval.errors import DataError
from infini_eval.models import naive
from infini_eval.models.load import gates
from infini_eval.models.naive import Weights

STEP = math.sqrt(2)  # between the lengths that are tried
LONGEST = 2**27  # tokens, about ten times the longest context that anything here is evaluated on
SHARE = 0.9  # of the prompts that have to be right for a context to be called held
MOST_TOKENS = 1 << 14  # of a prompt: more would measure the same at greater cost
Features = tuple[torch.Tensor, torch.Tensor]


@torch.inference_mode()
def features(weights: Weights, config: ModelConfig, ids_BT: torch.Tensor) -> Iterator[Features]:
    """Each layer's sigma(q) that reads the memory and sigma(k) that writes it, [B, N, T, H] each, in fp32."""
    x_BTD = weights["model.token_position_embeddings.pp_block.token_embedding.weight"][ids_BT]
    for index in range(config.num_hidden_layers):
        prefix = f"model.decoder.{index}.pp_block."
        layer = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        normed = naive.rms_norm(x_BTD, layer["input_layernorm.weight"], config.rms_norm_eps)
        yield _features(normed, layer, config)
        x_BTD = x_BTD + naive.attention(normed, layer, config, "on", config.memory_query)
        normed = naive.rms_norm(x_BTD, layer["post_attention_layernorm.weight"], config.rms_norm_eps)
        x_BTD = x_BTD + naive.mlp(normed, layer)


def _features(x_BTD: torch.Tensor, layer: Weights, config: ModelConfig) -> Features:
    queries, keys = [], []
    for segment_BLD in x_BTD.split(config.segment_length or x_BTD.shape[1], dim=1):
        q, k, _ = naive.project(segment_BLD, layer, config)
        queries.append(naive.rope(q, config) if config.memory_query == "rotary" else q)
        keys.append(k)
    return naive.feature_map(torch.cat(queries, 2)), naive.feature_map(torch.cat(keys, 2))


@torch.inference_mode()
def least_denominators(weights: Weights, config: ModelConfig, ids_BT: torch.Tensor) -> torch.Tensor:
    """The smallest denominator of any read in these prompts, of queries and (the delta rule's) of keys, [layers, N]."""
    length, least = config.segment_length, []
    assert length is not None
    for q_BNTH, k_BNTH in features(weights, config, ids_BT):
        sums = torch.stack([keys.sum(2) for keys in k_BNTH.split(length, dim=2)], 2)  # of each segment [B, N, S, H]
        z_BNSH = sums.cumsum(2)
        found = []
        for x_BNTH in (q_BNTH, k_BNTH):
            parts = x_BNTH.split(length, dim=2)[1:]
            found += [(part @ z_BNSH[:, :, s, :, None]).amin((0, 2, 3)) for s, part in enumerate(parts)]
        least.append(torch.stack(found).amin(0))
    return torch.stack(least)


@torch.inference_mode()
def equal_tokens(weights: Weights, config: ModelConfig, item: WorkItem, answer: Sequence[int]) -> torch.Tensor:
    """Tokens of haystack that weigh as much as the needle in the answer's reads: [layers, N], means of log10 over tokens.

    Of the segments before the question's; the first one's other tokens are left out, where a prompt's instructions stand.
    """
    length, at = config.segment_length, item.position
    assert length is not None and at.token_start is not None and at.token_end is not None
    ids = torch.from_numpy(np.append(item.ids, answer[:-1]).astype(np.int64))[None]
    positions = [item.tokens - 1 + place for place in range(len(answer))]
    rows = []
    for q_BNTH, k_BNTH in features(weights, config, ids):
        by_token = []
        for position in positions:
            border = position // length * length
            weight_NT = torch.einsum("nh,nth->nt", q_BNTH[0, :, position], k_BNTH[0, :, :border])
            needle = torch.zeros(border, dtype=torch.bool)
            needle[at.token_start : at.token_end] = True
            hay = ~needle
            hay[:length] = False
            by_token.append((weight_NT[:, needle].sum(1) / weight_NT[:, hay].mean(1)).log10())
        rows.append(torch.stack(by_token).mean(0))
    return torch.stack(rows)


@dataclass(frozen=True)
class Held:
    """One prompt with its haystack's part of the memory multiplied: the lengths in tokens, and whether each is right."""

    tokens: tuple[float, ...]
    right: tuple[bool, ...]

    @property
    def breaks_at(self) -> float:
        """Between the last length up to which all are right and the next one: 0 if none is, infinite if all are."""
        if all(self.right):
            return math.inf
        first = self.right.index(False)
        return math.sqrt(self.tokens[first - 1] * self.tokens[first]) if first else 0.0


def held(diagnoser: Diagnoser, item: WorkItem, longest: int = LONGEST) -> Held:
    """Answer a prompt with the memory of ever longer haystacks of its kind, from its own length to `longest` tokens."""
    length, model = model_length(diagnoser), diagnoser.model
    question = (item.tokens - 1) // length
    borders = [segment * length for segment in range(1, question + 1)]
    memories = raw_memories_at(model, item.ids, borders)  # [S][layers] of [G, H, E]
    hay = haystack_segments(item, length)
    repeated = [sum(memories[s][layer] - memories[s - 1][layer] for s in hay) for layer in range(len(memories[0]))]
    hay_tokens = len(hay) * length
    steps = max(0, math.ceil(math.log((longest - item.tokens) / hay_tokens + 1, STEP)))
    factors = [STEP**step for step in range(steps + 1)]
    states = [
        torch.stack([memories[-1][layer] + (factor - 1) * more for factor in factors])
        for layer, more in enumerate(repeated)
    ]
    answer = diagnoser.tokens(item)
    given = answers_from(model, states, question, item.ids[question * length :], len(answer) + 2)
    tokens = tuple(item.tokens + (factor - 1) * hay_tokens for factor in factors)
    return Held(tokens, tuple(diagnoser.is_answer(item, each) for each in given))


def model_length(diagnoser: Diagnoser) -> int:
    length = diagnoser.checkpoint.config.segment_length
    assert length is not None
    return length


def haystack_segments(item: WorkItem, length: int) -> list[int]:
    """Whole segments between the first and the question's that hold nothing of the needle: they can be repeated."""
    at = item.position
    assert at.token_start is not None and at.token_end is not None
    needle = range(at.token_start // length, (at.token_end - 1) // length + 1)
    return [segment for segment in range(1, (item.tokens - 1) // length) if segment not in needle]


def capacity(diagnoser: Diagnoser, prepared: Sequence[WorkItem], longest: int = LONGEST) -> dict[str, Any]:
    """Measure prompts whose needle lies in an earlier segment and that have haystack to repeat; a JSON-ready report.

    Raises:
        DataError: no prompt is usable.
    """
    length = model_length(diagnoser)
    usable = [item for item in prepared if _usable(item, length)]
    if not usable:
        raise DataError(
            f"none of {len(prepared)} prompts has a needle in an earlier segment and a segment of haystack beside it",
            valid=f"prompts of four segments ({4 * length:,} tokens) to {MOST_TOKENS:,} tokens",
        )
    config = diagnoser.checkpoint.config
    equal = [equal_tokens(diagnoser.weights, config, item, diagnoser.tokens(item)) for item in usable]
    found = [held(diagnoser, item, longest) for item in usable]
    return {
        "schema_version": 1,
        "checkpoint": str(diagnoser.checkpoint.folder),
        "samples": len(usable),
        "left_out": len(prepared) - len(usable),
        "tokens": sorted({item.tokens for item in usable}),
        "right": sum(each.right[0] for each in found),
        "longest": longest,
        "breaks": median_interval([each.breaks_at for each in found]),
        "holds": quantile([each.breaks_at for each in found], 1 - SHARE),
        "by_length": by_length(found),
        "heads": _heads(gates(diagnoser.checkpoint), torch.stack(equal)),
    }


def _usable(item: WorkItem, length: int) -> bool:
    if not item.position.compressions or item.tokens > MOST_TOKENS:
        return False
    earlier = needle_segment_of(item, length) < (item.tokens - 1) // length
    return earlier and bool(haystack_segments(item, length))


def median_interval(lengths: Sequence[float]) -> dict[str, Any]:
    """The median with the 95 % interval that order statistics give whatever the distribution; None stands for beyond."""
    from scipy import stats

    ordered, n = sorted(lengths), len(lengths)
    below = int(stats.binom.ppf(0.025, n, 0.5)) if n > 1 else 0
    low, high = (ordered[below - 1], ordered[n - below]) if below else (0.0, math.inf)
    return {"tokens": _finite(quantile(ordered, 0.5)), "low": low, "high": _finite(high), "n": n}


def quantile(lengths: Sequence[float], share: float) -> float | None:
    """The length that `share` of the prompts do not reach; None where it is beyond what was tried."""
    ordered = sorted(lengths)
    return _finite(ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1 if share else 0)])


def by_length(found: Sequence[Held]) -> list[dict[str, Any]]:
    """How many prompts hold at powers of two of tokens, as far as any was tried."""
    last = min(each.tokens[-1] for each in found)
    first = max(each.tokens[0] for each in found)
    powers = [2**power for power in range(math.ceil(math.log2(first)), math.floor(math.log2(last)) + 1)]
    return [
        {"tokens": tokens, "right": sum(each.breaks_at > tokens for each in found), "n": len(found)}
        for tokens in powers
    ]


def _heads(gates_LN: torch.Tensor, equal_SLN: torch.Tensor) -> list[dict[str, Any]]:
    """Every head, the one whose needle outweighs most haystack first."""
    rows = []
    for layer, head in np.ndindex(*gates_LN.shape):
        logs = equal_SLN[:, layer, head]
        interval = Interval.of(logs.tolist())
        rows.append(
            {
                "layer": layer,
                "head": head,
                "gate": gates_LN[layer, head].item(),
                "equal_tokens": _tokens(interval.mean),
                "equal_low": _tokens(interval.low),
                "equal_high": _tokens(interval.high),
                "equal_least": _tokens(logs.min().item()),
            }
        )
    return sorted(rows, key=lambda row: -(row["equal_tokens"] or 0.0))


def _tokens(log10: float) -> float | None:
    return 10**log10 if math.isfinite(log10) else None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
