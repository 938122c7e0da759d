"""What every backend offers: facts about its model, prepared prompts, a plan of batches, and answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from infini_eval.distributed.mesh import Mesh
from infini_eval.engine.batching import Batch
from infini_eval.records import NeedlePosition, Response, Sample

NO_IDS = np.empty(0, dtype=np.int32)
Settled = Callable[[str, Sample], bool]  # whether what follows the text so far can still change a score of the sample


@dataclass(frozen=True)
class Prepared:
    """A sample as the backend will see it: token ids [T] int32 and where the needle stands among them.

    Backends that send text have `ids` of length 0 and count `tokens` with the tokenizer they know (0: not known). Until
    a sample is computed `ids` may be empty elsewhere too: see evaluation/preparing.py.
    `prefixes`: digests of what stands before each segment border (engine/prefixes.py); empty where none are needed.
    """

    sample: Sample
    ids: np.ndarray
    tokens: int
    position: NeedlePosition
    excerpt: str
    prefixes: bytes = b""


Rows = Mapping[int, Prepared] | Sequence[Prepared]


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
        """Tokenise a prompt; `needle` is its character span. Each rank does so for its share, on several threads."""

    def token_ids(self, sample: Sample) -> np.ndarray:
        """The ids that `prepare` gave, made again: [T] int32, empty where `answer` needs none. Called by other threads."""

    def plan(self, prepared: Sequence[Prepared], largest: int | None = None) -> list[Batch]:
        """Batches of at most `largest` samples, alike on every rank and whatever the world size."""

    def load(self) -> None:
        """Load the weights; called once a run, after everything cheap was checked."""

    def answer(
        self, work: Iterator[tuple[Batch, Rows]], on_tokens: Callable[[int], None] | None = None
    ) -> Iterator[tuple[Batch, list[Response]]]:
        """Responses to each batch, in the order of its rows, which have their `Prepared`, ids included, beside them."""
