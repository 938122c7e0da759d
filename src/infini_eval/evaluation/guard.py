"""Guards of a run: batches no larger than memory allows, refusal before loading, measured memory beside planned memory."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from typing import Any

from infini_eval.api.backend import Backend, BatchPlan, Footprint, WorkItem
from infini_eval.config import EvalConfig, ModelConfig
from infini_eval.distributed.device_memory import all_devices, peak_bytes, restart_peak, used_bytes
from infini_eval.distributed.launch import World
from infini_eval.distributed.progress import Display, Look, time_left
from infini_eval.errors import ConfigError
from infini_eval.evaluation.messages import log_notes
from infini_eval.evaluation.run_folder import RunFolder
from infini_eval.planning.architecture import Architecture, from_model_config
from infini_eval.planning.devices import Device
from infini_eval.planning.hf_config import from_hf_config
from infini_eval.planning.memory import RankPlan, Settings, plan_stages
from infini_eval.planning.nearest import nearest_settings
from infini_eval.planning.text import gigabytes, parts_in_words

logger = logging.getLogger(__name__)
LISTED = 4  # settings that would fit, in a refusal


def batches_left(
    config: EvalConfig, backend: Backend, world: World, items: Sequence[WorkItem], folder: RunFolder
) -> BatchPlan:
    """Plan the batches that no earlier attempt has finished, alike on every rank.

    Rows that memory allows are decided once, for all ranks and attempts.
    """
    finished = folder.state.finished_keys
    plan = unfinished(backend.plan(items, folder.largest_batch), items, finished)
    if not plan.batches or not config.plan or config.batch_size is not None:
        return plan
    footprint = backend.footprint(plan)
    rows = max(len(batch.rows) for batch in plan.batches)
    fitting = rows if footprint is None else rows_that_fit(footprint, batch_sizes(plan, items, config.max_new_tokens))
    fitting = min(world.all_gather_object("rows that fit", fitting))
    if fitting == rows:
        return plan
    log_notes(world, [f"batches of {rows} samples do not fit into memory: {fitting} at once"])
    folder.note(batch_sizes={"largest": fitting})
    return unfinished(backend.plan(items, fitting), items, finished)


def batch_sizes(plan: BatchPlan, items: Sequence[WorkItem], answer_tokens: int) -> list[tuple[int, int]]:
    """Rows of each batch, and tokens of its longest row with the answer."""
    return [(len(b.rows), max(items[row].tokens for row in b.rows) + answer_tokens) for b in plan.batches]


def unfinished(plan: BatchPlan, items: Sequence[WorkItem], finished: Container[str]) -> BatchPlan:
    """Planned batches without the rows that are done: a row keeps its companions' plan however often a run resumes.

    Args:
        finished: keys of samples that are done.
    """
    left = []
    for batch in plan.batches:
        rows = tuple(row for row in batch.rows if items[row].sample.key not in finished)
        if rows:
            left.append(replace(batch, rows=rows, cost=batch.cost * len(rows) // len(batch.rows)))
    return replace(plan, batches=left)


class MemoryWatch:
    """The most that loading and answering use, beyond what is used before: planned, then measured.

    Where the footprint is None (a model spread over devices, weights that come packed) or the planner does not know the
    model, memory is measured only.

    Args:
        footprint: of the model that `backend.load()` is about to load.
        batches: (rows, tokens of the longest row with its answer) of each batch to come.
        note: keeps what it is given in the manifest's environment.
        refuse: whether a plan that does not fit, or that cannot be made, ends the run.
        watches: whether the model computes in this process; else nothing is written or measured.

    Raises:
        ConfigError: it cannot fit, and `refuse` is set.
    """

    def __init__(
        self,
        footprint: Footprint | None,
        batches: Sequence[tuple[int, int]],
        world: World,
        note: Callable[..., None],
        *,
        refuse: bool,
        watches: bool,
    ) -> None:
        self._note = note
        self._watches = watches and world.is_main
        self._plan = None if footprint is None else plan_memory(footprint, batches, refuse=refuse)
        self._devices = all_devices(world.device) if footprint is None else [world.device]
        self._before = [used_bytes(device) for device in self._devices]
        for device in self._devices:
            restart_peak(device)
        if self._watches and footprint is None:
            logger.info("memory is not planned for a model spread over devices, or stored quantised; it is measured")
        elif self._watches and footprint is not None:
            self._log_plan(footprint.name)

    def _log_plan(self, name: str) -> None:
        if self._plan is None:
            logger.warning("--no-plan: going on although no memory plan can be made for %s", name)
            return
        logger.info("planned: %s of %s free", describe(self._plan), gigabytes(self._plan.capacity))
        if not self._plan.fits:
            logger.warning("--no-plan: going on although the plan says that it does not fit")
        self._write()

    def loading(self, every_s: float | None = None) -> contextlib.AbstractContextManager[object]:
        """Show, while a model is loaded, how much of it is in memory: of the planned weights where there is a plan."""
        total = None if self._plan is None else self._plan.weights
        began = time.monotonic()

        def look() -> Look:
            pairs = zip(self._devices, self._before, strict=True)
            held = sum(max(0, used_bytes(device) - before) for device, before in pairs)
            there = gigabytes(held) if total is None else f"{gigabytes(min(held, total))} of {gigabytes(total)}"
            line = f"loading the model: {there} in memory, {time_left(held, total, time.monotonic() - began)}"
            return Look(line, min(1.0, held / total) if total else 0.0)

        if not self._watches:
            return contextlib.nullcontext()
        return Display(lambda: look, lambda line: logger.info("%s", line), every_s=every_s, last=False)

    def log_peak(self) -> None:
        """Log the measured peak of this rank after the last answer, and write it into the manifest."""
        if not self._watches:
            return
        peaks = [peak_bytes(device) for device in self._devices]
        measured = [max(0, peak - before) for peak, before in zip(peaks, self._before, strict=True)]
        planned = "not" if self._plan is None else gigabytes(self._plan.planned)
        logger.info("memory of this rank: %s planned, %s measured", planned, gigabytes(sum(measured)))
        self._write(measured_bytes=sum(measured), measured_peak_bytes=sum(peaks))

    def _write(self, **measured: int) -> None:
        planned = {} if self._plan is None else plan_as_json(self._plan)
        self._note(memory={**planned, **measured})


def plan_memory(footprint: Footprint, batches: Sequence[tuple[int, int]], *, refuse: bool = True) -> RankPlan | None:
    """The plan of this rank for the batch that needs most; None where the planner does not know such a model.

    batches: (rows, tokens of the longest row with its answer) of each batch. With `refuse` set, ConfigError where it does
    not fit and where there is no plan.
    """
    try:
        architecture = architecture_of(footprint)
    except ConfigError:
        if refuse:
            raise
        return None
    device = _device(footprint)
    plans = [_plan(architecture, footprint, device, *each, len(batches)) for each in _longest(batches)]
    worst, settings, tokens = max(plans, key=lambda each: each[0].total)
    if not worst.fits and refuse:
        nearest = nearest_settings(architecture, tokens, device, footprint.mesh, settings, "run")
        raise ConfigError(
            f"{footprint.name} does not fit on {footprint.device}: {settings.batch} x {tokens:,} tokens with"
            f" {footprint.mesh} need {describe(worst)}, but {gigabytes(footprint.capacity)} are free",
            valid="; or ".join(nearest[:LISTED]) or "nothing was found that fits: see infini-eval plan",
            next_step="--no-plan tries it all the same",
        )
    return worst


def rows_that_fit(footprint: Footprint, batches: Sequence[tuple[int, int]]) -> int:
    """Those of the largest batch where all batches fit; else the most with which these lengths fit, at least 1.

    What is left of a group of samples makes a smaller batch, and that may need more: its steps are longer. So every
    smaller number has to fit too.
    """
    architecture, device, sizes = architecture_of(footprint), _device(footprint), _longest(batches)

    def fits(most: int) -> bool:
        plans = (_plan(architecture, footprint, device, min(most, n), tokens, len(batches)) for n, tokens in sizes)
        return all(plan.fits for plan, _, _ in plans)

    largest = max(rows for rows, _ in batches)
    if fits(largest):
        return largest
    return max(1, next(rows for rows in range(1, largest + 1) if not fits(rows)) - 1)


def architecture_of(footprint: Footprint) -> Architecture:
    """The shape that a backend named; ConfigError where the planner does not know such a model."""
    try:
        if isinstance(footprint.model, ModelConfig):
            return from_model_config(footprint.model, footprint.name)
        return from_hf_config(footprint.model, footprint.name)
    except ConfigError as error:
        raise _no_plan(footprint, error) from None


def _no_plan(footprint: Footprint, error: ConfigError) -> ConfigError:
    kind = "" if isinstance(footprint.model, ModelConfig) else f" (model_type {footprint.model.get('model_type')!r})"
    return ConfigError(
        f"no memory plan can be made for {footprint.name}{kind}: {error.problem}",
        valid="models whose config.json has the keys of a decoder with attention, such as Llama, Qwen, Gemma, DeepSeek",
        next_step="--no-plan runs it without a plan",
    )


def describe(plan: RankPlan) -> str:
    """The sum and its parts, in one clause."""
    return f"{gigabytes(plan.total)} a rank ({parts_in_words(plan)})"


def plan_as_json(plan: RankPlan) -> dict[str, Any]:
    """For a manifest: bytes of each part."""
    return {
        "weight_bytes": plan.weights,
        "kv_cache_bytes": plan.state.total,
        "activation_bytes": plan.activations,
        "logit_bytes": plan.logits,
        "prefix_cache_bytes": plan.prefix_cache,
        "allocator_bytes": plan.allocator,
        "library_bytes": plan.libraries,
        "loading_bytes": plan.loading,
        "planned_bytes": plan.planned,
        "reserve_bytes": plan.reserve,
        "capacity_bytes": plan.capacity,
    }


def _longest(batches: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Each number of rows, with the most tokens that such a batch has."""
    longest: dict[int, int] = {}
    for rows, tokens in batches:
        longest[rows] = max(tokens, longest.get(rows, 0))
    return list(longest.items())


def _device(footprint: Footprint) -> Device:
    kind = "cpu" if footprint.device == "cpu" else "cuda"
    return Device(footprint.device, kind, footprint.capacity)


def _plan(
    architecture: Architecture, footprint: Footprint, device: Device, rows: int, tokens: int, batches: int
) -> tuple[RankPlan, Settings, int]:
    pipelined = footprint.mesh.pp if architecture.engine == "native" else 1
    settings = Settings(
        dtype=footprint.dtype,
        kv_dtype=footprint.kv_dtype,
        memory_dtype=footprint.memory_dtype,
        quantization=footprint.quantization,
        kernel=footprint.kernel,
        batch=rows,
        batches_in_flight=max(1, min(pipelined, batches)),
        prefill_chunk=footprint.prefill_chunk,
        kept_prefixes=footprint.kept_prefixes,
        kept_bytes=footprint.kept_bytes,
    )
    return plan_stages(architecture, tokens, device, footprint.mesh, settings)[footprint.stage], settings, tokens
