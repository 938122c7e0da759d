"""A plan as a person reads it, and as JSON."""

from __future__ import annotations

from typing import Any

from infini_eval.planning.memory import RankPlan
from infini_eval.planning.nearest import nearest_settings
from infini_eval.planning.plan import ContextPlan, Plan
from infini_eval.planning.weights import QUANTIZATIONS


def gigabytes(count: float) -> str:
    """Bytes in units of 10^9 or 10^6."""
    return f"{count / 1e9:,.1f} GB" if abs(count) >= 1e9 else f"{count / 1e6:,.1f} MB"


def millions(count: int) -> str:
    """Parameters in units of 10^9 or 10^6."""
    return f"{count / 1e9:.3f} B" if count >= 10**8 else f"{count / 1e6:.3f} M"


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 1:
        return f"{seconds * 1000:.1f} ms"
    return (
        f"{seconds:.1f} s"
        if seconds < 120
        else f"{seconds / 60:.1f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


def plan_text(plan: Plan) -> str:
    """The whole plan: the model once, then each context."""
    model, settings = plan.architecture, plan.settings
    parts = {name: count for name, count in model.parameters_by_part().items() if count}
    dtype = settings.dtype or model.dtype
    lines = [
        f"model      {model.name} ({model.kind}): {model.total_parameters:,} parameters",
        "           " + ", ".join(f"{name.replace('_', ' ')} {millions(count)}" for name, count in parts.items()),
        f"weights    {gigabytes(plan.weight_bytes)} in {dtype}, quantization {settings.quantization}"
        f" ({QUANTIZATIONS[settings.quantization].meaning})",
        f"devices    {plan.count} x {plan.device.name}, {gigabytes(plan.device.capacity)} usable each",
    ]
    lines += [f"note       {note}" for note in model.notes]
    for context in plan.contexts:
        lines += ["", *_context_lines(plan, context)]
    return "\n".join(lines)


def _context_lines(plan: Plan, context: ContextPlan) -> list[str]:
    rank = context.busiest
    verdict = "fits" if context.fits else f"DOES NOT FIT: {gigabytes(rank.total - rank.capacity)} too much on each rank"
    lines = [
        f"{context.context:,} tokens with {context.mesh}: {verdict}",
        f"  state      {_state_words(context)}",
        *(_rank_line(each) for each in context.ranks),
        f"  longest    {_longest_words(plan, context)}",
    ]
    if context.recommended is None:
        needed = context.devices_needed
        advice = "no topology of these devices fits" + (f"; one replica needs {needed} of them" if needed else "")
    else:
        advice = f"use {context.recommended}"
    lines.append(f"  topology   {advice}")
    if not context.fits:
        changes = nearest_settings(plan.architecture, context.context, plan.device, context.mesh, plan.settings)
        lines.append(f"  would fit  {'; or '.join(changes) or 'with none of the usual changes alone'}")
    if context.speed is not None:
        speed, work = context.speed, plan.work
        lines.append(
            f"  time       prefill {duration(speed.prefill_seconds)} ({speed.prefill_flops:.3g} FLOPs at"
            f" {work.utilisation:.0%} of the peak), a new token {duration(speed.decode_seconds_per_token)};"
            f" {work.samples:,} sample{'s' * (work.samples != 1)}: {speed.gpu_hours:.3g} GPU-hours (estimates)"
        )
    return lines


def _state_words(context: ContextPlan) -> str:
    state = context.state
    if state.memory or state.open_segment:
        return (
            f"{gigabytes(state.total)} at any length: compressive memory {gigabytes(state.memory)}, open segment"
            f" {gigabytes(state.open_segment)} (a full KV cache would be {gigabytes(state.unbounded)})"
        )
    words = f"KV cache {gigabytes(state.cache)}"
    return words if state.cache == state.unbounded else f"{words} ({gigabytes(state.unbounded)} without windows)"


def _rank_line(rank: RankPlan) -> str:
    return (
        f"  stage {rank.stage}    layers {rank.layers.start}-{rank.layers.stop - 1}; a rank: {parts_in_words(rank)};"
        f" {gigabytes(rank.total)} of {gigabytes(rank.capacity)}"
    )


def parts_in_words(plan: RankPlan) -> str:
    """What the sum is made of; while loading, nothing but weights and transients exists."""
    if plan.loading > plan.working:
        rest = {"transients of loading": plan.loading}
    else:
        rest = {"state": plan.state.total, "activations": plan.activations, "logits": plan.logits}
        rest |= {"kept prefixes": plan.prefix_cache} if plan.prefix_cache else {}
        rest |= {"allocator": plan.allocator} if plan.allocator else {}
    rest |= {"libraries": plan.libraries} if plan.libraries else {}
    parts = {"weights": plan.weights, **rest, "reserve": plan.reserve}
    return ", ".join(f"{name} {gigabytes(count)}" for name, count in parts.items())


def _longest_words(plan: Plan, context: ContextPlan) -> str:
    trained = plan.architecture.max_positions
    limit = f"; the model knows positions up to {trained:,}" if trained else ""
    if context.longest is None:
        return "any length fits" + limit
    return ("not even one token fits" if context.longest == 0 else f"up to {context.longest:,} tokens fit") + limit


def plan_json(plan: Plan) -> dict[str, Any]:
    """The plan as JSON values; bytes, seconds and tokens throughout."""
    model, settings = plan.architecture, plan.settings
    return {
        "model": model.name,
        "kind": model.kind,
        "total_parameters": model.total_parameters,
        "parameters": model.parameters_by_part(),
        "active_parameters": model.active_parameters,
        "total_weight_bytes": plan.weight_bytes,
        "dtype": settings.dtype or model.dtype,
        "kv_dtype": settings.kv_dtype or settings.dtype or model.dtype,
        "quantization": settings.quantization,
        "batch": settings.batch,
        "devices": {"count": plan.count, "name": plan.device.name, "capacity_bytes": plan.device.capacity},
        "utilisation": plan.work.utilisation,
        "max_positions": model.max_positions,
        "notes": list(model.notes),
        "contexts": [_context_json(context) for context in plan.contexts],
    }


def _context_json(context: ContextPlan) -> dict[str, Any]:
    state, speed = context.state, context.speed
    return {
        "context_length": context.context,
        "fits": context.fits,
        "kv_cache_bytes": state.total,
        "kv_cache_bytes_without_windows": state.unbounded,
        "compressive_memory_bytes": state.memory,
        "open_segment_bytes": state.open_segment,
        "topology": vars(context.mesh),
        "recommended_topology": vars(context.recommended) if context.recommended else None,
        "devices_needed": context.devices_needed,
        "longest_context_that_fits": context.longest,
        "any_context_fits": context.longest is None,
        "per_rank": [_rank_json(rank) for rank in context.ranks],
        "prefill_flops": speed.prefill_flops if speed else None,
        "prefill_seconds": speed.prefill_seconds if speed else None,
        "decode_seconds_per_token": speed.decode_seconds_per_token if speed else None,
        "seconds_per_sample": speed.seconds_per_sample if speed else None,
        "gpu_hours": speed.gpu_hours if speed else None,
    }


def _rank_json(rank: RankPlan) -> dict[str, Any]:
    return {
        "stage": rank.stage,
        "layers": [rank.layers.start, rank.layers.stop],
        "weight_bytes": rank.weights,
        "kv_cache_bytes": rank.state.total,
        "activation_bytes": rank.activations,
        "logit_bytes": rank.logits,
        "allocator_bytes": rank.allocator,
        "library_bytes": rank.libraries,
        "loading_bytes": rank.loading,
        "reserve_bytes": rank.reserve,
        "total_bytes": rank.total,
        "capacity_bytes": rank.capacity,
        "fits": rank.fits,
    }
