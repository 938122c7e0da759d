"""The batches that are left to answer: planned alike on every rank, no larger than memory allows, without what is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from infini_eval.api.backend import Backend, BatchPlan, WorkItem
from infini_eval.config import EvalConfig
from infini_eval.distributed.launch import World
from infini_eval.evaluation.run_folder import RunFolder
from infini_eval.evaluation.telling import say
from infini_eval.planning.check import rows_that_fit
from infini_eval.results.resume import ResumeState


def batches_left(
    config: EvalConfig, backend: Backend, world: World, prepared: Sequence[WorkItem], folder: RunFolder
) -> BatchPlan:
    """What no earlier attempt has finished. Rows that memory allows are decided once, for all ranks and attempts."""
    state = folder.state
    plan = unfinished(backend.plan(prepared, largest_batch(state)), prepared, state)
    if not plan.batches or not config.plan or config.batch_size is not None:
        return plan
    footprint = backend.footprint(plan)
    rows = max(len(batch.rows) for batch in plan.batches)
    fitting = rows if footprint is None else rows_that_fit(footprint, batch_sizes(config, plan, prepared))
    fitting = min(world.all_gather_object("rows that fit", fitting))
    if fitting == rows:
        return plan
    say(world, [f"batches of {rows} samples do not fit into memory: {fitting} at once"])
    folder.note(batch_sizes={"largest": fitting})
    return unfinished(backend.plan(prepared, fitting), prepared, state)


def batch_sizes(config: EvalConfig, plan: BatchPlan, prepared: Sequence[WorkItem]) -> list[tuple[int, int]]:
    """Rows of each batch, and tokens of its longest row with the answer."""
    return [(len(b.rows), max(prepared[row].tokens for row in b.rows) + config.max_new_tokens) for b in plan.batches]


def largest_batch(state: ResumeState) -> int | None:
    """What memory allowed in an earlier attempt; None where nothing is known."""
    return ((state.previous.environment if state.previous else {}).get("batch_sizes") or {}).get("largest")


def unfinished(plan: BatchPlan, prepared: Sequence[WorkItem], state: ResumeState) -> BatchPlan:
    """Planned batches without the rows that are done: a row keeps its companions' plan however often a run resumes."""
    left = []
    for batch in plan.batches:
        rows = tuple(row for row in batch.rows if prepared[row].sample.key not in state.finished_keys)
        if rows:
            left.append(replace(batch, rows=rows, cost=batch.cost * len(rows) // len(batch.rows)))
    return replace(plan, batches=left)
