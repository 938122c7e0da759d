"""What rank 0 tells all ranks again and again, in an order that all share: the requests of a server as they come."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from infini_eval.distributed.launch import World

if TYPE_CHECKING:
    import torch


IDLE_S = 30.0


class Announcer:
    """Broadcasts on a group of its own, so that nothing else comes between; a single process tells itself.

    Every rank makes one, and makes the same calls in the same order; what the others pass is not looked at. Waiting for
    what is told has the launch's time limit, so rank 0 must not be silent for longer than `idle_s`.
    """

    def __init__(self, world: World) -> None:
        self.alone, self._speaks = world.world_size == 1, world.is_main
        self.idle_s = min(IDLE_S, world.timeout_s / 4)
        if not self.alone:
            import torch.distributed as dist

            self._group = dist.new_group(backend="gloo", timeout=timedelta(seconds=world.timeout_s))

    def tell(self, said: bytes = b"") -> bytes:
        """Give every rank the bytes that rank 0 passes."""
        if self.alone:
            return said
        import torch

        size = self._broadcast(torch.tensor([len(said)]))
        mine = torch.frombuffer(bytearray(said), dtype=torch.uint8) if said and self._speaks else None
        told = self._broadcast(torch.empty(int(size), dtype=torch.uint8) if mine is None else mine)
        return told.numpy().tobytes()

    def tell_flags(self, said: Sequence[bool]) -> list[bool]:
        """Give every rank the truth values that rank 0 passes; all pass as many."""
        if self.alone:
            return list(said)
        import torch

        told: list[bool] = self._broadcast(torch.tensor(said, dtype=torch.bool)).tolist()
        return told

    def _broadcast(self, tensor: torch.Tensor) -> torch.Tensor:
        import torch.distributed as dist

        if tensor.numel():
            dist.broadcast(tensor, src=0, group=self._group)
        return tensor


class TellsItself(Announcer):
    """An announcer for a process that joined no launch."""

    def __init__(self) -> None:
        self.alone, self._speaks, self.idle_s = True, True, IDLE_S
