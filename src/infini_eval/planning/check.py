"""Before weights are loaded: does this rank's part fit? If not, the numbers and the nearest setting that does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from infini_eval.api.backend import Footprint
from infini_eval.config import ModelConfig
from infini_eval.errors import ConfigError
from infini_eval.planning.architecture import Architecture, from_model_config
from infini_eval.planning.devices import Device
from infini_eval.planning.hf_config import from_hf_config
from infini_eval.planning.memory import RankPlan, Settings, plan_stages
from infini_eval.planning.nearest import nearest_settings
from infini_eval.planning.text import gigabytes, parts_in_words

LISTED = 4


def check(footprint: Footprint, batches: Sequence[tuple[int, int]], *, refuse: bool = True) -> RankPlan | None:
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


def as_json(plan: RankPlan) -> dict[str, Any]:
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
