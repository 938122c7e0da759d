"""Drawn tokens on their way to the host, which reads them a step later, so that a device never waits for the host.

Legend: B batch.
"""

from __future__ import annotations

from collections import deque

import torch

ON_DEVICES = 1  # steps that a device computes before the host has read what the first of them drew


class DrawnTokens:
    """Tokens of each step, newest last; at most `lag` steps are unread while more are to come."""

    def __init__(self, lag: int) -> None:
        self._lag = lag
        self._unread: deque[tuple[torch.Tensor, torch.cuda.Event | None]] = deque()

    def put(self, tokens_B: torch.Tensor) -> None:
        """Begin to copy a step's tokens to the host."""
        if tokens_B.device.type != "cuda":
            self._unread.append((tokens_B, None))
            return
        host_B = torch.empty(tokens_B.shape, dtype=tokens_B.dtype, pin_memory=True)
        host_B.copy_(tokens_B, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()
        self._unread.append((host_B, copied))

    def read(self, *, everything: bool) -> list[list[int]]:
        """The tokens of the steps that need not, or must not, wait any longer; oldest first."""
        steps = []
        while len(self._unread) > (0 if everything else self._lag):
            tokens_B, copied = self._unread.popleft()
            if copied is not None:
                copied.synchronize()
            steps.append(tokens_B.tolist())
        return steps
