"""A replica's share of the work: batches from the queue, answers from the backend, scores, log lines, records on disk."""

from __future__ import annotations

import contextlib
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from infini_eval.api import registry
from infini_eval.api.backend import Backend, Batch, BatchPlan, EarlyStop, Rows, WorkItem
from infini_eval.api.scorer import Scorer
from infini_eval.api.task import Task
from infini_eval.config import EvalConfig, LogFormat
from infini_eval.data.passkey import number_source
from infini_eval.distributed.launch import World
from infini_eval.distributed.progress import Progress
from infini_eval.distributed.work_queue import WorkQueue
from infini_eval.errors import ConfigError, OutOfMemory, in_one_line
from infini_eval.evaluation.prepare import BatchPrefetcher, with_ids
from infini_eval.evaluation.run_folder import RunFolder
from infini_eval.records import CHOICES, PERPLEXITY_OF, Response, Sample, SampleRecord

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scoring:
    """The scorers whose scores are recorded, by name, and the name of the one that counts."""

    counts: str
    scorers: Mapping[str, Scorer]

    @classmethod
    def of(cls, task: Task, counts: str) -> Scoring:
        """Load the scorer that counts and those that the task records beside it; a setting is no part of their names."""
        scorers = {one.name: one for one in map(registry.scorer, dict.fromkeys([*task.scorers, counts]))}
        for one in scorers.values():
            one.set_up()
        return cls(registry.scorer(counts).name, scorers)

    def early_stop(self, backend: Backend, *, allowed: bool = True) -> EarlyStop | None:
        """The rule that ends answers: no further token can change a recorded score.

        None unless `allowed`, and with a scorer or a backend that wants whole texts.
        """
        return EarlyStop.of(list(self.scorers.values())) if allowed and backend.stops_early else None

    def record(self, item: WorkItem, response: Response, replica: int) -> SampleRecord:
        """Score an answer, and put together what is recorded of the sample."""
        sample = item.sample
        scores = {name: score(response.text, sample) for name, score in self.scorers.items()}
        source = number_source(sample.prompt, sample.answer, response.text)
        return SampleRecord(sample, response, scores, self.counts, item.position, item.excerpt, replica, source)


@dataclass(frozen=True)
class SampleLog:
    """Log lines for single samples.

    Args:
        format: "line", one line a sample, or "guide", as the evaluation guide prints them: input, generation, Success
            or Failure.
        texts: add the text around the needle and the answer to each line; "guide" always has them.
        whole_prompts: the whole prompt stands for the text around the needle.
    """

    format: LogFormat = "line"
    texts: bool = False
    whole_prompts: bool = False

    @classmethod
    def of(cls, config: EvalConfig) -> SampleLog | None:
        """As the configuration asks for it; None where it asks for quiet."""
        texts = config.verbose or config.log_prompts
        return None if config.quiet else cls(config.log_format, texts, config.log_prompts)

    def write(self, record: SampleRecord) -> None:
        """Log one sample."""
        shown = record.sample.prompt if self.whole_prompts else record.excerpt
        if self.format == "guide":
            logger.info("input: %s", shown)
            logger.info("generation: %s", record.response.text)
            logger.info("%s\n%s", _success(record), "-" * 50)
            return
        logger.info("%s", sample_line(record))
        if self.texts:
            logger.info("prompt: %s", shown)
            logger.info("answer: %s", record.response.text)


def sample_line(record: SampleRecord) -> str:
    """One line: right or wrong, depth, length, score, seconds, the sample's name; of a failed sample the reason."""
    mark, word = _judgement(record)
    depth, tokens = record.sample.depth_percent, record.response.prompt_tokens
    parts = [f"{mark} {word:<6}"]
    parts += [] if math.isnan(depth) else [f"depth {depth:>5.4g} %"]
    parts += [f"{tokens:>7,} tokens"] if tokens else []
    value = record.score.value
    parts += [] if value is None else [f"score {value:.2f}"]
    parts += [f"{record.response.seconds:>6.2f} s", record.sample.id]
    if record.failed:
        parts.append(in_one_line(record.response.error or "", 200))
    return "  ".join(parts)


def _judgement(record: SampleRecord) -> tuple[str, str]:
    """A mark and a word."""
    value = record.score.value
    if record.failed:
        return "!", "failed"
    if value is None:
        return "?", "asked"
    return ("✓", "right") if value >= 1 else ("✗", "wrong") if value <= 0 else ("~", "partly")


def _success(record: SampleRecord) -> str:
    """The guide's word for a sample; an answer that no scorer reads is neither."""
    if record.failed:
        return f"Failure: {in_one_line(record.response.error or '')}"
    value = record.score.value
    return "not judged yet" if value is None else "Success" if value >= 1 else "Failure"


@dataclass
class ThroughputTotals:
    """Of some samples: their number, prompt tokens, those reused, and seconds."""

    samples: int = 0
    tokens: int = 0
    reused: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> str:
        """Computed tokens a second; a reused token is nobody's speed."""
        return f"{(self.tokens - self.reused) / self.seconds:,.0f}" if self.seconds > 0 else "unknown"


@dataclass
class ReuseStats:
    """The answered samples of one replica: read whole (cold), or sharing what was computed for others (warm).

    Those of backends that cannot say are not among them.
    """

    cold: ThroughputTotals = field(default_factory=ThroughputTotals)
    warm: ThroughputTotals = field(default_factory=ThroughputTotals)

    def add(self, response: Response) -> None:
        reused = response.details.get("reused_tokens")
        if reused is None or response.error is not None:
            return
        totals = self.warm if reused else self.cold
        totals.samples += 1
        totals.tokens += response.prompt_tokens
        totals.reused += reused
        totals.seconds += response.seconds

    def line(self) -> str | None:
        """One line for people; None where nothing was counted."""
        tokens = self.cold.tokens + self.warm.tokens
        if not tokens:
            return None
        kinds = (("read whole", self.cold), ("with shared prefixes", self.warm))
        rates = [f"{one.samples} samples {how} at {one.rate} computed tokens/s" for how, one in kinds if one.samples]
        return f"prompt tokens: {tokens:,}, of which {self.warm.reused:,} reused; {', '.join(rates)}"


def answer_batches(
    plan: BatchPlan,
    items: Sequence[WorkItem],
    backend: Backend,
    world: World,
    folder: RunFolder,
    scoring: Scoring,
    early_stop: EarlyStop | None,
    log: SampleLog | None,
    every_s: float | None = None,
) -> None:
    """Answer this replica's share of the batches; its leader scores, logs and writes each sample as it finishes.

    Args:
        plan: the batches that are left; their rows index `items`.
        log: None writes no lines for single samples.
        every_s: seconds between two lines of progress.
    """
    mesh, batches = backend.mesh, plan.batches
    store = world.new_client()
    queue = WorkQueue([batch.priority for batch in batches], mesh, store, stopping=lambda: world.stop.requested)
    planned = sum(len(batch.rows) for batch in batches)
    reuse = ReuseStats()
    with (
        folder.writer(mesh.dp_rank) if mesh.is_leader else contextlib.nullcontext() as writer,
        BatchPrefetcher(queue, batches, items, backend) as prefetcher,
        Progress(world, planned, computed_tokens(batches, items), every_s=every_s) as progress,
    ):

        def on_tokens(tokens: int) -> None:
            if mesh.is_leader:
                progress.add(tokens=tokens)

        watched = progress if mesh.is_leader else None
        work = _until_stopped(prefetcher, world, watched, alone=mesh.shape.tp * mesh.shape.pp == 1)
        answers = backend.answer(work, early_stop=early_stop, on_tokens=on_tokens)
        for item, response in _answered(folder, items, answers, backend, watched):
            if writer is None:
                continue
            reuse.add(response)
            record = scoring.record(item, response, mesh.dp_rank)
            writer.write(record)
            if log is not None:
                log.write(record)
            progress.add(samples=1, score=None if response.error else record.scores[scoring.counts].value)
    if (line := reuse.line()) is not None:
        logger.info("%s", line)


def computed_tokens(batches: Sequence[Batch], items: Sequence[WorkItem]) -> int:
    """Prompt tokens that the batches will compute: less than they have where samples share prefixes."""
    return sum(min(batch.cost, sum(items[row].tokens for row in batch.rows)) for batch in batches)


def _until_stopped(
    prefetcher: BatchPrefetcher, world: World, progress: Progress | None, *, alone: bool
) -> Iterator[tuple[Batch, Rows]]:
    """Batches with their items, and what this rank does in messages about errors and in the line of progress.

    Args:
        progress: None on ranks that do not count.
        alone: the replica is this process; otherwise its peers would wait for a batch that is dropped here.
    """
    for number, batch, rows in prefetcher:
        if alone and world.stop.requested:
            return
        world.set_status(f"batch {number}, samples {', '.join(rows[row].sample.id for row in batch.rows[:4])}")
        if progress is not None:
            longest = max(rows.values(), key=lambda item: item.tokens)
            planned = min(batch.cost, sum(item.tokens for item in rows.values()))
            progress.begin(batch, longest.sample.id, longest.tokens, planned)
        yield batch, rows


def check_measures(backend: Backend, samples: Sequence[Sample], name: str) -> None:
    """ConfigError where a perplexity, or the likeliest of some choices, is asked for that this backend cannot measure."""
    if backend.measures_texts:
        return
    for column, what in ((PERPLEXITY_OF, "perplexity"), (CHOICES, "log-probabilities of choices")):
        if any(column in sample.columns for sample in samples):
            able = [name for name, face in registry.backend_faces().items() if getattr(face, "measures_texts", False)]
            raise ConfigError(f"{what}: the backend {name} cannot measure it", valid=f"--backend {' or '.join(able)}")


def _measured(item: WorkItem, response: Response, backend: Backend) -> Response:
    """The response with what the sample asks to be measured: the likeliest of its choices as the text, a text's perplexity."""
    if response.error is not None:
        return response
    if choices := item.sample.columns.get(CHOICES):
        asked = with_ids(item, backend)
        sums = {str(choice): math.fsum(backend.logprobs(asked, str(choice))) for choice in choices}
        details = {**response.details, "choice_logprobs": json.dumps({c: round(v, 6) for c, v in sums.items()})}
        response = replace(response, text=max(sums, key=lambda choice: sums[choice]), details=details)
    text = item.sample.columns.get(PERPLEXITY_OF)
    if not text:
        return response
    values = backend.logprobs(with_ids(item, backend), str(text))
    perplexity = math.exp(-math.fsum(values) / len(values)) if values else None
    details = {"perplexity": perplexity, "perplexity_tokens": len(values)}
    return replace(response, details={**response.details, **details})


def _answered(
    folder: RunFolder,
    items: Sequence[WorkItem],
    answers: Iterator[tuple[Batch, list[Response]]],
    backend: Backend,
    progress: Progress | None,
) -> Iterator[tuple[WorkItem, Response]]:
    """Each item with its response; where memory runs out on a sharded model, note a smaller batch for the next attempt."""
    try:
        for batch, responses in answers:
            if progress is not None:
                progress.end(batch)
            for row, response in zip(batch.rows, responses, strict=True):
                yield items[row], _measured(items[row], response, backend)
    except OutOfMemory as error:
        if error.rows > 1:
            folder.note_largest_batch(error.rows // 2)
        raise
