"""What every backend offers: facts about its model, prepared prompts, a plan of batches, and answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from infini_eval.distributed.mesh import Mesh
from infini_eval.engine.batching import Batch
from infini_eval.records import NeedlePosition, Response, Sample

Settled = Callable[[str, Sample], bool]  # whether what follows the text so far can still change a score of the sample


@dataclass(frozen=True)
class Prepared:
    """A sample as the backend will see it: token ids [T] int32 and where the needle stands among them.

    Backends that send text have `ids` of length 0 and count `tokens` with the tokenizer they know (0: not known).
    """

    sample: Sample
    ids: np.ndarray
    tokens: int
    position: NeedlePosition
    excerpt: str


class AnyBackend(Protocol):
    """A file under backends/ defines `Backend` with these; its constructor takes (EvalConfig, World) and loads no weights.

    One that draws token by token may also have `stop_when(settled)`: called before `answer`, it ends an answer, with
    the finish reason "settled", at the first token after which `settled(text so far, sample)` is true.
    """

    mesh: Mesh
    notes: list[str]

    def model_facts(self) -> Mapping[str, Any]:
        """For manifest.model: name, kind, parameters, segment_length, dtype, memory, memory_query."""

    def identity(self) -> Mapping[str, Any]:
        """For manifest.identity: everything about the model that can change an answer."""

    def environment(self) -> Mapping[str, Any]:
        """For manifest.environment: topology, batch, device."""

    def prepare(self, sample: Sample, needle: tuple[int, int] | None) -> Prepared:
        """Tokenise a prompt; `needle` is its character span."""

    def plan(self, prepared: Sequence[Prepared], largest: int | None = None) -> list[Batch]:
        """Batches of at most `largest` samples, alike on every rank and whatever the world size."""

    def load(self) -> None:
        """Load the weights; called once a run, after everything cheap was checked."""

    def answer(
        self, work: Iterator[tuple[Batch, Sequence[Prepared]]], on_tokens: Callable[[int], None] | None = None
    ) -> Iterator[tuple[Batch, list[Response]]]:
        """Responses to each batch, in the order of its rows (which index the list beside it)."""
