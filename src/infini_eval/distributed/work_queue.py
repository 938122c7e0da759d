"""Batches dealt to replicas as they ask, longest first; a slow replica just does less."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from infini_eval.distributed.mesh import Mesh

if TYPE_CHECKING:
    from torch.distributed import Store

END = -1
SPARE = 2  # batches a replica that are dealt only to replicas that are free


class WorkQueue:
    """Indices of planned batches, each dealt to exactly one replica.

    The leader of a replica draws from a counter on the store; its tp and pp peers read the same sequence of indices,
    each at its own pace, so a pipeline may run ahead.
    """

    def __init__(
        self,
        costs: Sequence[float],
        mesh: Mesh,
        store: Store | None = None,
        *,
        stopping: Callable[[], bool] = lambda: False,
        name: str = "work",
    ) -> None:
        """Make the queue, alike on every rank.

        Args:
            costs: of each batch, in any unit.
            store: this thread's connection; a single process needs none.
            stopping: once it returns true no more batches are dealt.
            name: used once in a launch.
        """
        if store is None and mesh.shape.world_size > 1:
            raise ValueError("several processes need a store to share their work")
        self.order = sorted(range(len(costs)), key=lambda index: (-costs[index], index))
        self._mesh, self._store, self._stopping, self._name = mesh, store, stopping, name
        self._drawn = 0
        self._ended = False

    def pull(self) -> int | None:
        """Draw the next batch of this replica; None when there is no more, or the run is stopping."""
        if self._ended:
            return None
        index = self._lead() if self._mesh.is_leader else self._follow()
        self._drawn += 1
        self._ended = index == END
        return None if self._ended else index

    def has_plenty(self) -> bool:
        """Tell whether a replica may draw before it is free: near the end that would leave another one without work."""
        replicas = self._mesh.shape.dp
        return replicas == 1 or self._taken() + SPARE * replicas < len(self.order)

    def __iter__(self) -> Iterator[int]:
        while (index := self.pull()) is not None:
            yield index

    def _lead(self) -> int:
        index = END if self._stopping() else self._draw()
        if self._store is not None and self._mesh.shape.tp * self._mesh.shape.pp > 1:
            self._store.set(self._key(), str(index))
        return index

    def _draw(self) -> int:
        number = self._drawn if self._store is None else self._store.add(f"{self._name}/next", 1) - 1
        return self.order[number] if number < len(self.order) else END

    def _taken(self) -> int:
        """Batches that all replicas together have drawn."""
        return self._drawn if self._store is None else self._store.add(f"{self._name}/next", 0)

    def _follow(self) -> int:
        assert self._store is not None
        return int(self._store.get(self._key()))

    def _key(self) -> str:
        return f"{self._name}/{self._mesh.dp_rank}/{self._drawn}"
