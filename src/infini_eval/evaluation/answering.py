"""A replica's share of the work: batches from the queue, answers from the backend, scores, log lines, records on disk."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence

from infini_eval.api.backend import Backend, Batch, EarlyStop, Rows, WorkItem
from infini_eval.api.scorer import Scorer
from infini_eval.config import EvalConfig
from infini_eval.datasets.number_source import number_source
from infini_eval.distributed.launch import World
from infini_eval.distributed.progress import Progress
from infini_eval.distributed.work_queue import WorkQueue
from infini_eval.errors import OutOfMemory
from infini_eval.evaluation.feed import Feed
from infini_eval.evaluation.run_folder import RunFolder
from infini_eval.evaluation.tally import Tally
from infini_eval.records import Response, SampleRecord
from infini_eval.results.writer import SampleWriter, replica_name

logger = logging.getLogger(__name__)
Answered = tuple[Batch, list[Response]]


def answer_batches(
    config: EvalConfig,
    scorers: Mapping[str, Scorer],
    early_stop: EarlyStop | None,
    backend: Backend,
    world: World,
    left: Sequence[Batch],
    prepared: Sequence[WorkItem],
    folder: RunFolder,
) -> None:
    """Answer this replica's share of the batches; its leader scores, logs and writes each sample as it finishes."""
    mesh = backend.mesh
    store = world.new_client()
    queue = WorkQueue([batch.priority for batch in left], mesh, store, stopping=lambda: world.stop.requested)
    rows = [row for batch in left for row in batch.rows]
    alone = mesh.shape.tp * mesh.shape.pp == 1
    tally = Tally()

    def work() -> Iterator[tuple[Batch, Rows]]:
        for index, items in feed:
            if alone and world.stop.requested:  # peers would wait for a batch that is dropped here
                return
            world.set_status(
                f"batch {index}, samples {', '.join(prepared[row].sample.id for row in left[index].rows[:4])}"
            )
            yield left[index], items

    with (
        SampleWriter(config.save_path, replica_name(mesh.dp_rank))
        if mesh.is_leader
        else contextlib.nullcontext() as writer,
        Feed(queue, left, prepared, backend) as feed,
        Progress(world, len(rows), computed_tokens(left, prepared)) as progress,
    ):

        def on_tokens(tokens: int) -> None:
            if mesh.is_leader:
                progress.add(tokens=tokens)

        answers = backend.answer(work(), early_stop=early_stop, on_tokens=on_tokens)
        for batch, responses in _smaller_next_time(folder, answers):
            if writer is None:
                continue
            for row, response in zip(batch.rows, responses, strict=True):
                tally.add(response)
                record = _record(config, scorers, prepared[row], response, mesh.dp_rank)
                writer.write(record)
                _log_sample(config, record)
                progress.add(samples=1, score=None if response.error else record.scores[config.scorer].value)
    if (line := tally.line()) is not None:
        logger.info("%s", line)


def computed_tokens(left: Sequence[Batch], prepared: Sequence[WorkItem]) -> int:
    """Prompt tokens that the batches will compute: less than they have where samples share prefixes."""
    return sum(min(batch.cost, sum(prepared[row].tokens for row in batch.rows)) for batch in left)


def _smaller_next_time(folder: RunFolder, answers: Iterator[Answered]) -> Iterator[Answered]:
    """Pass answers on; where memory runs out on a sharded model, note a smaller batch for the next attempt."""
    try:
        yield from answers
    except OutOfMemory as error:
        if error.rows > 1:
            folder.note_largest_batch(error.rows // 2)
        raise


def _record(
    config: EvalConfig, scorers: Mapping[str, Scorer], prepared: WorkItem, response: Response, replica: int
) -> SampleRecord:
    scores = {name: score(response.text, prepared.sample) for name, score in scorers.items()}
    source = number_source(prepared.sample.prompt, prepared.sample.answer, response.text)
    return SampleRecord(
        prepared.sample, response, scores, config.scorer, prepared.position, prepared.excerpt, replica, source
    )


def _log_sample(config: EvalConfig, record: SampleRecord) -> None:
    if config.quiet:
        return
    prompt = record.sample.prompt if config.log_prompts else record.excerpt
    logger.info("input: %s", prompt)
    logger.info("generation: %s\n%s", record.response.text, "-" * 50)
