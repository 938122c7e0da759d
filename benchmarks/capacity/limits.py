"""What a run does beside the GPUs' work, in seconds of wall clock at one scale, and which of it is the largest.

As the code is: prompts are tokenised by all ranks together, twice (once to plan, once for the compute, on a thread beside it);
every rank reads the whole data set; every rank reads its shard; rank 0 merges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.capacity.grid import Cost, Grid, batches_of
from benchmarks.capacity.host import HostRates
from infini_eval.distributed.mesh import MeshShape
from infini_eval.planning.architecture import Architecture
from infini_eval.planning.weights import total_weight_bytes


@dataclass(frozen=True)
class Limits:
    """Seconds of wall clock before, during and after the compute, and bytes of text that a node holds.

    `overlapped` happens while the GPUs compute: it delays nothing as long as it is shorter than they are.
    """

    serial: Mapping[str, float]
    overlapped: Mapping[str, float]
    node_text: float

    def first(self, cost: Cost) -> str:
        """What delays the run most, and by how much of the GPUs' work: a serial part, or what is slower than the GPUs."""
        delays = dict(self.serial) | {name: spent - cost.seconds for name, spent in self.overlapped.items()}
        worst = max(delays, key=lambda name: delays[name])
        share = 100 * delays[worst] / cost.ideal
        return f"{worst}: +{share:,.0f} %" if share >= 10 else f"{worst}: +{share:.2g} %"


def limits_of(
    architecture: Architecture, grid: Grid, cost: Cost, gpus: int, replica: MeshShape, rates: HostRates
) -> Limits:
    """The parts of one run of the grid on `gpus` GPUs."""
    nodes = -(-gpus // rates.gpus_a_node)
    on_node = min(gpus, rates.gpus_a_node)
    text = grid.tokens * rates.characters
    weights = total_weight_bytes(architecture, "bfloat16")
    records = len(grid.prompts)
    draws = len(batches_of(architecture, grid.prompts)) * replica.world_size + gpus
    serial = {
        "idle replicas at the end": cost.seconds - cost.ideal,
        "starting": rates.start,
        "reading the data": max(text / rates.read, text * rates.stored * nodes / rates.storage),
        "tokenising to plan": text / rates.tokenise / (rates.cores * gpus),
        "loading weights": max(weights / 1e9 * rates.load / replica.world_size, weights * nodes / rates.storage),
        "all-reduce": reduced_bytes(architecture, replica) * grid.tokens / rates.link / (gpus // replica.world_size),
        "merging": records * rates.merge,
    }
    overlapped = {
        "tokenising for the compute": text / rates.tokenise / (gpus // replica.world_size),
        "the store": draws / rates.store,
    }
    return Limits(serial, overlapped, text * on_node)


def reduced_bytes(architecture: Architecture, replica: MeshShape) -> float:
    """Bytes a token that leave each GPU of a tensor-parallel group: two all-reduces a layer, bf16, in a ring."""
    if replica.tp == 1:
        return 0.0
    ring = 2 * (replica.tp - 1) / replica.tp
    return 2 * len(architecture.layers) * architecture.hidden_size * 2 * ring
