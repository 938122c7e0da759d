"""Backend: who answers. What a backend is asked, what it may declare, and the defaults of everything that it need not say.

The shortest backend is a `TextBackend` with one method; see CONTRIBUTING.md.
"""

from __future__ import annotations

import importlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from infini_eval.api.scorer import Scorer
from infini_eval.config import EvalConfig, ModelConfig, Topology
from infini_eval.distributed.launch import World
from infini_eval.distributed.mesh import Mesh, MeshShape
from infini_eval.errors import TopologyError
from infini_eval.records import NeedlePosition, Response, Sample

if TYPE_CHECKING:
    import numpy as np

ROWS = 8  # samples of a batch where neither the user nor the backend says more
UNFINISHED = "\ufffd"  # what a decoder writes for a character of which only the first bytes are there


@cache
def no_ids() -> np.ndarray:
    """The token ids of an item that is sent as text, or whose ids are not made yet: [0] int32."""
    import numpy as np  # command lines read this file for their flags, and start without numpy

    return np.empty(0, dtype=np.int32)


@dataclass(frozen=True)
class WorkItem:
    """A sample on its way to a backend: token ids [T] int32 and where the needle stands among them.

    Backends that send text have `ids` of length 0 and count `tokens` with the tokenizer they know (0: not known). Until
    a sample is computed `ids` may be empty elsewhere too: they are made again one batch ahead (evaluation/prepare.py).
    `prefixes`: digests of what stands before each segment border (engine/prefixes.py); empty where none are needed.
    """

    sample: Sample
    ids: np.ndarray
    tokens: int
    position: NeedlePosition
    excerpt: str
    prefixes: bytes = b""


Rows = Mapping[int, WorkItem] | Sequence[WorkItem]


@dataclass(frozen=True)
class Batch:
    """Samples computed together. `rows` index the planned list.

    cost: tokens that are computed, the longest row times the rows where nothing is shared. snapshot_points: prefixes
    that later batches start from, as (border, digest). schedule_cost: the cost of the largest batch that shares a prefix
    with this one, so that these follow one another; None where none does.
    """

    rows: tuple[int, ...]
    cost: int
    snapshot_points: tuple[tuple[int, bytes], ...] = ()
    schedule_cost: int | None = None

    @property
    def priority(self) -> int:
        """By which batches are dealt, the highest first."""
        return self.cost if self.schedule_cost is None else self.schedule_cost


@dataclass(frozen=True)
class BatchPlan:
    """How a run's samples are computed, alike on every rank and whatever the world size.

    longest: tokens of the longest prompt. kept_prefixes: how many states of shared prefixes will be kept at most, None
    where samples share nothing.
    """

    batches: Sequence[Batch]
    longest: int = 0
    kept_prefixes: int | None = None


@dataclass(frozen=True)
class Footprint:
    """What a backend that computes in this process will need of one rank's memory; the planner works from it.

    model: nanotron's ModelConfig, or a Hugging Face config.json as a mapping. stage and mesh: this rank's place.
    capacity: bytes that this process may use on `device` ("cpu" or "cuda:N"). prefill_chunk: tokens of each row in one
    step (None: as the engine chooses). kernel: sdpa, flash or eager. kept_prefixes: how many states of shared prefixes
    will be kept, of `kept_bytes` at most (None: nothing is shared).
    """

    model: ModelConfig | Mapping[str, Any]
    name: str
    mesh: MeshShape
    stage: int
    device: str
    capacity: int
    dtype: str
    kv_dtype: str | None = None
    memory_dtype: str = "float32"
    quantization: str = "none"
    kernel: Literal["sdpa", "flash", "eager"] = "sdpa"
    prefill_chunk: int | None = None
    kept_prefixes: int | None = None
    kept_bytes: int = 0


@dataclass(frozen=True)
class EarlyStop:
    """Ends an answer at the first token after which no scorer can change its score; made of scorers that can tell."""

    scorers: tuple[Scorer, ...]

    @classmethod
    def of(cls, scorers: Sequence[Scorer]) -> EarlyStop | None:
        """None where a scorer wants the whole text."""
        return cls(tuple(scorers)) if all(scorer.can_settle for scorer in scorers) else None

    def __call__(self, text: str, sample: Sample) -> bool:
        """Whether the answer may end after `text`."""
        text = text.rstrip(UNFINISHED)
        return all(scorer.is_settled(text, sample) for scorer in self.scorers)


class Backend(ABC):
    """Who answers. A subclass is opened by every process of a launch; its constructor reads facts and loads no weights.

    Args:
        config: the evaluation; `config.settings(SettingsClass)` gives the backend's own settings.
        world: this process among its peers.

    Attributes:
        settings: dataclasses whose options are the backend's flags; those of other backends are refused.
        computes_here: whether tensors are computed in this process, so that a GPU is taken for it.
        attention: values of --attn-implementation that it takes.
        stops_early: whether `answer` heeds its `early_stop`.
        measures_texts: whether it has `logprobs`.
        mesh: this process's place on the axes dp, tp and pp; data parallel by default.
        notes: what users should know before the first answer.
    """

    settings: ClassVar[tuple[type[Any], ...]] = ()
    computes_here: ClassVar[bool] = False
    attention: ClassVar[tuple[str, ...]] = ("sdpa",)
    stops_early: ClassVar[bool] = False
    measures_texts: ClassVar[bool] = False

    mesh: Mesh
    notes: list[str]

    def __init__(self, config: EvalConfig, world: World) -> None:
        self._config, self._world = config, world
        self.mesh = data_parallel_mesh(config.topology, world, config.backend)
        self.notes = []

    def model_facts(self) -> Mapping[str, Any]:
        """For manifest.model: name, kind, parameters, segment_length, dtype, memory, memory_query; None where unknown."""
        unknown = dict.fromkeys(("parameters", "segment_length", "dtype", "memory", "memory_query"))
        return {"name": self._config.model_path, "kind": self._config.backend, **unknown}

    def identity(self) -> Mapping[str, Any]:
        """For manifest.identity: everything about the model that can change an answer."""
        own = [asdict(one) for one in self._config.backend_settings if isinstance(one, self.settings)]
        model = {"name": self._config.model_path, **({"settings": own} if own else {})}
        return {"model": model, "sampling": asdict(self._config.sampling)}

    def environment(self) -> Mapping[str, Any]:
        """For manifest.environment: topology, batch, device."""
        shape = self.mesh.shape
        return {"ckpt_path": self._config.model_path, "topology": {"dp": shape.dp, "tp": shape.tp, "pp": shape.pp}}

    def prepare(self, sample: Sample, needle: tuple[int, int] | None) -> WorkItem:
        """Tokenise a prompt; `needle` is its character span. Each rank does so for its share, on several threads."""
        around = needle or (len(sample.prompt), len(sample.prompt))
        shown = sample.prompt[max(0, around[0] - 200) : around[1] + 200]
        return WorkItem(sample, no_ids(), 0, NeedlePosition(None, None), shown)

    def token_ids(self, sample: Sample) -> np.ndarray:
        """The ids that `prepare` gave, made again: [T] int32, empty where `answer` needs none. Called by other threads."""
        return no_ids()

    def plan(self, items: Sequence[WorkItem], largest: int | None = None) -> BatchPlan:
        """Batches of at most `largest` samples; by default the longest prompts first."""
        order = sorted(range(len(items)), key=lambda row: (-_length(items[row]), row))
        size = min(self._config.batch_size or ROWS, largest or len(items) or 1)
        groups = [tuple(order[start : start + size]) for start in range(0, len(order), size)]
        batches = [Batch(rows, sum(_length(items[row]) for row in rows)) for rows in groups]
        return BatchPlan(batches, max((item.tokens for item in items), default=0))

    def footprint(self, plan: BatchPlan) -> Footprint | None:
        """What this rank will load and compute; None where memory is another machine's business, or not known."""
        return None

    def load(self, plan: BatchPlan) -> None:  # noqa: B027 - nothing to load is the ordinary case of served models
        """Load the weights; called once a run, after everything cheap was checked."""

    def logprobs(self, item: WorkItem, text: str) -> list[float]:
        """The natural logarithm of each token's probability, were `text` the answer; only where `measures_texts`.

        Every process of a replica calls this. The prompt is read once more.
        """
        raise NotImplementedError(f"{type(self).__name__} measures no texts")

    @abstractmethod
    def answer(
        self,
        work: Iterator[tuple[Batch, Rows]],
        *,
        early_stop: EarlyStop | None = None,
        on_tokens: Callable[[int], None] | None = None,
    ) -> Iterator[tuple[Batch, list[Response]]]:
        """Answer the batches.

        Args:
            work: batches with their items by row, ids included.
            early_stop: ends an answer where no further token matters; only given to backends that have `stops_early`.
            on_tokens: called with the number of prompt tokens just read, for the progress line.

        Returns:
            Each batch with its responses in the order of its rows.
        """


class TextBackend(Backend):
    """A backend that is asked with texts: a subclass says what `complete` answers to a list of prompts."""

    @abstractmethod
    def complete(self, prompts: list[str]) -> Sequence[str]:
        """One answer a prompt, in order; called with the prompts of one batch."""

    def answer(
        self,
        work: Iterator[tuple[Batch, Rows]],
        *,
        early_stop: EarlyStop | None = None,
        on_tokens: Callable[[int], None] | None = None,
    ) -> Iterator[tuple[Batch, list[Response]]]:
        for batch, rows in work:
            began = time.perf_counter()
            items = [rows[row] for row in batch.rows]
            texts = list(self.complete([item.sample.prompt for item in items]))
            if len(texts) != len(items) or not all(isinstance(text, str) for text in texts):
                raise TypeError(f"{type(self).__name__}.complete gave {len(texts)} answers to {len(items)} prompts")
            seconds = (time.perf_counter() - began) / len(items)
            pairs = zip(texts, items, strict=True)
            yield batch, [Response(text, [], item.tokens, "stop", seconds) for text, item in pairs]
            if on_tokens is not None:
                on_tokens(sum(item.tokens for item in items))


@dataclass(frozen=True)
class LazyBackend:
    """What command lines must know of a backend whose import takes seconds; `load()` gives the class itself.

    target: "module:Class". The other fields are the attributes of that class.
    """

    target: str
    settings: tuple[type, ...] = ()
    computes_here: bool = False
    attention: tuple[str, ...] = ("sdpa",)
    stops_early: bool = False
    measures_texts: bool = False

    def load(self) -> type[Backend]:
        """Import the backend."""
        module, _, name = self.target.partition(":")
        found: type[Backend] = getattr(importlib.import_module(module), name)
        return found


def data_parallel_mesh(asked: Topology, world: World, backend: str) -> Mesh:
    """The mesh of processes that are alike: every one a replica; TopologyError where something else is asked for."""
    size = world.world_size
    if (asked.tp or 1) > 1 or (asked.pp or 1) > 1 or (asked.dp or size) != size:
        axes = " ".join(f"--{axis} {n}" for axis in ("dp", "tp", "pp") if (n := getattr(asked, axis)) is not None)
        raise TopologyError(
            f"{axes}: the backend {backend} is only asked from several processes, it is not split over them",
            valid=f"with {size} processes: --dp {size} --tp 1 --pp 1",
            next_step="leave --dp, --tp and --pp out",
        )
    return Mesh.build(MeshShape(dp=size), world.rank)


def _length(item: WorkItem) -> int:
    """Tokens where they are known, else characters."""
    return item.tokens or len(item.sample.prompt)
