"""What travels between the pipeline stages of one replica: activations forwards, the drawn tokens back.

Plain isend/recv. Tokens have a gloo group of their own: they are needed on the host, and on one NCCL communicator a
pending activation and a token going the other way would wait for each other.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import torch
import torch.distributed as dist

BAD_LOGITS = -1  # in place of a token: the row's logits were NaN or infinite


@dataclass
class Links:
    """This stage's place in the pipeline. `ranks` are the global ranks of the stages with our tp rank, in order."""

    stage: int = 0
    stages: int = 1
    ranks: tuple[int, ...] = (0,)
    activation_group: dist.ProcessGroup | None = None
    token_group: dist.ProcessGroup | None = None
    _pending: deque = field(default_factory=deque)

    @property
    def first(self) -> bool:
        return self.stage == 0

    @property
    def last(self) -> bool:
        return self.stage == self.stages - 1

    def receive_activation(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        x = torch.empty(shape, dtype=dtype, device=device)
        dist.recv(x, src=self.ranks[self.stage - 1], group=self.activation_group)
        return x

    def send_activation(self, x: torch.Tensor) -> None:
        self._send(x.contiguous(), self.ranks[self.stage + 1], self.activation_group)

    def share_tokens(self, tokens_B: torch.Tensor) -> None:
        """Last stage: give the drawn tokens to the other stages."""
        for rank in self.ranks[:-1]:
            self._send(tokens_B, rank, self.token_group)

    def receive_tokens(self, batch: int) -> torch.Tensor:
        tokens_B = torch.empty(batch, dtype=torch.int64)
        dist.recv(tokens_B, src=self.ranks[-1], group=self.token_group)
        return tokens_B

    def share_from_last(self, tensor: torch.Tensor) -> torch.Tensor:
        """Broadcast a host tensor of known shape from the last stage (checks only; blocks)."""
        if self.stages > 1:
            dist.broadcast(tensor, src=self.ranks[-1], group=self.token_group)
        return tensor

    def flush(self) -> None:
        """Wait until everything that was sent has left."""
        while self._pending:
            self._pending.popleft()[0].wait()

    def _send(self, tensor: torch.Tensor, rank: int, group: dist.ProcessGroup | None) -> None:
        # the tensor must outlive its sending, so it is kept beside the handle
        while self._pending and self._pending[0][0].is_completed():
            self._pending.popleft()
        self._pending.append((dist.isend(tensor, dst=rank, group=group), tensor))
