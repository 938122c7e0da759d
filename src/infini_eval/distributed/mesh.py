"""The mesh: this rank's place on the axes pp, dp and tp, and the process groups along them.

Ranks are numbered as nanotron does, tp fastest: rank = (pp_rank * dp + dp_rank) * tp + tp_rank.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infini_eval.distributed.topology import MeshShape

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

SINGLE = MeshShape()


@dataclass(frozen=True)
class Mesh:
    """One rank's view of the mesh. A group is None where its axis has size 1: nothing is to be sent then.

    `tp_group` and `pp_group` join the shards of a stage and the stages of a shard, on the device's backend;
    `pp_token_group` is a gloo group of the same stages for host tensors; `replica_group` joins all tp x pp ranks of
    this rank's replica.
    """

    shape: MeshShape = SINGLE
    rank: int = 0
    tp_group: ProcessGroup | None = None
    pp_group: ProcessGroup | None = None
    pp_token_group: ProcessGroup | None = None
    replica_group: ProcessGroup | None = None

    @classmethod
    def build(cls, shape: MeshShape, rank: int = 0) -> Mesh:
        """The mesh of a rank, with its process groups; every rank calls this, with the same shape."""
        plain = cls(shape, rank)
        if shape.world_size == 1:
            return plain
        return cls(
            shape,
            rank,
            tp_group=_my_group(rank, (plain._line("tp", other) for other in range(shape.world_size)), shape.tp),
            pp_group=_my_group(rank, (plain._line("pp", other) for other in range(shape.world_size)), shape.pp),
            pp_token_group=_my_group(
                rank, (plain._line("pp", other) for other in range(shape.world_size)), shape.pp, backend="gloo"
            ),
            replica_group=_my_group(rank, map(plain.ranks_of_replica, range(shape.dp)), shape.tp * shape.pp),
        )

    @property
    def tp_rank(self) -> int:
        return self.rank % self.shape.tp

    @property
    def dp_rank(self) -> int:
        """The replica that this rank belongs to."""
        return self.rank // self.shape.tp % self.shape.dp

    @property
    def pp_rank(self) -> int:
        """The stage that this rank computes."""
        return self.rank // (self.shape.tp * self.shape.dp)

    @property
    def is_leader(self) -> bool:
        """Whether this rank speaks for its replica: first stage, first shard."""
        return self.tp_rank == 0 and self.pp_rank == 0

    @property
    def tag(self) -> str:
        """This rank in log lines."""
        return f"DP={self.dp_rank}|PP={self.pp_rank}|TP={self.tp_rank}"

    @property
    def tp_ranks(self) -> tuple[int, ...]:
        """Global ranks of the shards of this stage, in order."""
        return self._line("tp", self.rank)

    @property
    def pp_ranks(self) -> tuple[int, ...]:
        """Global ranks of the stages with our dp and tp rank, in order."""
        return self._line("pp", self.rank)

    def global_rank(self, *, pp: int = 0, dp: int = 0, tp: int = 0) -> int:
        """The rank at these coordinates."""
        return (pp * self.shape.dp + dp) * self.shape.tp + tp

    def ranks_of_replica(self, dp: int) -> tuple[int, ...]:
        """Global ranks of a replica, in order."""
        return tuple(
            self.global_rank(pp=pp, dp=dp, tp=tp) for pp in range(self.shape.pp) for tp in range(self.shape.tp)
        )

    def _line(self, axis: str, rank: int) -> tuple[int, ...]:
        """Global ranks of the line through `rank` along "tp" or "pp"."""
        at = Mesh(self.shape, rank)
        coordinates = {"pp": at.pp_rank, "dp": at.dp_rank, "tp": at.tp_rank}
        size = getattr(self.shape, axis)
        return tuple(self.global_rank(**(coordinates | {axis: number})) for number in range(size))


def _my_group(
    rank: int, lines: Iterable[tuple[int, ...]], size: int, backend: str | None = None
) -> ProcessGroup | None:
    """Make the groups of all lines, in the same order on every rank as torch demands; returns the one with `rank`."""
    import torch.distributed as dist

    if size == 1:
        return None
    mine = None
    for ranks in dict.fromkeys(lines):
        group = dist.new_group(list(ranks), backend=backend)
        mine = group if rank in ranks else mine
    return mine
