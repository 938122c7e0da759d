"""Which decoder layers each pipeline stage computes: contiguous, with the busiest stage as light as it can be."""

from __future__ import annotations

from itertools import pairwise

from infini_eval.config import ModelConfig

PREFILL_CHUNK = 1024  # tokens for which the head computes one row during prefill


def stage_layers(config: ModelConfig, stages: int) -> list[range]:
    """The layers of each stage, by cost a token: the embedding counts on the first stage, the head on the last."""
    layer = config.head_dim * config.hidden_size * 2 * (config.num_attention_heads + config.num_key_value_heads)
    layer += 3 * config.hidden_size * config.intermediate_size
    embedding, head = config.hidden_size, config.vocab_size * config.hidden_size / PREFILL_CHUNK
    costs = [float(layer)] * config.num_hidden_layers
    costs[0] += embedding
    costs[-1] += head
    return split_evenly(costs, stages)


def split_evenly(costs: list[float], parts: int) -> list[range]:
    """Cut `costs` into `parts` contiguous non-empty ranges so that the largest sum is smallest (dynamic programming)."""
    count = len(costs)
    assert 1 <= parts <= count, "topology was checked before"
    prefix = [0.0]
    for cost in costs:
        prefix.append(prefix[-1] + cost)
    # best[stop] = (largest sum, cuts) of the cheapest split of costs[:stop] into the parts made so far
    best = {stop: (prefix[stop], [stop]) for stop in range(1, count + 1)}
    for made in range(2, parts + 1):
        best = {
            stop: min(
                (max(best[cut][0], prefix[stop] - prefix[cut]), [*best[cut][1], stop]) for cut in range(made - 1, stop)
            )
            for stop in range(made, count + 1)
        }
    cuts = [0, *best[count][1]]
    return [range(start, stop) for start, stop in pairwise(cuts)]
