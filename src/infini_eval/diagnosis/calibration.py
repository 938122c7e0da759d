"""Sharpens a checkpoint's memory without training: larger queries and keys in the heads that tell needle from haystack.

sigma(u) = elu(u) + 1 is exp(u) below zero and u + 1 above it: multiplying q and k makes the features that the haystack
hardly has exponentially smaller, and those of the needle linearly larger. The limit is the denominator sigma(q).z of
queries that find nothing: far below 1e-6 float32 rounds the features to zero, and the read is 0/0.

Legend: B prompts, T tokens, N query heads, G kv heads.
"""

from __future__ import annotations

import logging
import math
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from infini_eval.api.backend import WorkItem
from infini_eval.backends.nanotron import prepare_sample
from infini_eval.checkpoint.layout import layer_name
from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.checkpoint.writer import write_checkpoint
from infini_eval.config import ModelConfig
from infini_eval.data.config import GenerateConfig
from infini_eval.data.dataset import generate_dataset
from infini_eval.data.reading import load_samples
from infini_eval.data.tokenizer import Tokenizer
from infini_eval.diagnosis.capacity import capacity, least_denominators
from infini_eval.diagnosis.findings import CLOSED
from infini_eval.diagnosis.sample import open_diagnoser, refuse_without_memory
from infini_eval.errors import ConfigError
from infini_eval.models.naive import Weights
from infini_eval.tasks.passkey import TASK

logger = logging.getLogger(__name__)
LEAST = 1e-6  # denominator; elu + 1 has steps of 6e-8 in float32, so smaller ones are rounding, then zero
NEAR = 30.0  # times fewer tokens than the best head: such heads are sharpened too
SCALES = tuple(round(1.05 + 0.05 * step, 2) for step in range(20))  # of the keys, from 1.05 to 2.0
GAIN = 1.5  # times the length at which half of the prompts break: less is not worth another checkpoint
MIXED = 768  # prompts on which every denominator is looked at
AT_ONCE = 16  # of them
MEASURED, MEASURED_SEGMENTS = 24, 8  # prompts on which the capacity is measured, and their segments


def query_scale(key_scale: float) -> float:
    """Queries grow half as much as keys: they set how many tokens a read tells apart, keys how much each leaks."""
    return 1 + (key_scale - 1) / 2


@dataclass(frozen=True)
class Calibration:
    """What was changed, and what was measured before and after: reports of `capacity`, the least denominators."""

    heads: tuple[tuple[int, int], ...]
    key_scale: float
    before: dict[str, Any]
    after: dict[str, Any]
    least_before: float
    least_after: float
    prompts: int

    def to_json(self) -> dict[str, Any]:
        return {
            "heads": [list(pair) for pair in self.heads],
            "key_scale": self.key_scale,
            "query_scale": query_scale(self.key_scale),
            "least_denominator": {"before": self.least_before, "after": self.least_after, "prompts": self.prompts},
            "before": self.before,
            "after": self.after,
        }


def chosen_heads(report: dict[str, Any]) -> tuple[tuple[int, int], ...]:
    """The heads (layer, head) with an open gate whose needle outweighs almost as much haystack as the best one's."""
    rows = [row for row in report["heads"] if abs(row["gate"]) >= CLOSED and row["equal_tokens"]]
    best = max((row["equal_tokens"] for row in rows), default=0.0)
    return tuple((row["layer"], row["head"]) for row in rows if row["equal_tokens"] * NEAR >= best)


def sharpened(weights: Weights, config: ModelConfig, heads: Sequence[tuple[int, int]], key_scale: float) -> Weights:
    """The weights with larger query rows of these heads and larger key rows of their kv heads; the others are shared."""
    changed, width = dict(weights), config.head_dim
    per_kv = config.num_attention_heads // config.num_key_value_heads
    for layer in sorted({layer for layer, _ in heads}):
        name = layer_name(layer, "attn.qkv_proj.weight")
        rows = changed[name].clone()
        queries = {head for at, head in heads if at == layer}
        for head in queries:
            rows[head * width : (head + 1) * width] *= query_scale(key_scale)
        for head in {head // per_kv for head in queries}:
            start = (config.num_attention_heads + head) * width
            rows[start : start + width] *= key_scale
        changed[name] = rows
    return changed


def least_of(weights: Weights, config: ModelConfig, batches: Iterable[torch.Tensor], enough: float = 0.0) -> float:
    """The least denominator of any read in batches of prompts [B, T]; no more is read once it is below `enough`."""
    least = math.inf
    for ids_BT in batches:
        found = least_denominators(weights, config, ids_BT).min().item()
        least = min(least, found if math.isfinite(found) else 0.0)
        if least < enough:
            break
    return least


def largest_safe(
    weights: Weights, config: ModelConfig, heads: Sequence[tuple[int, int]], batches: Sequence[torch.Tensor]
) -> tuple[float, float]:
    """The largest of SCALES that leaves every denominator at LEAST or more, and the least one there; 1.0 for none."""
    low, high, best = 0, len(SCALES), (1.0, math.nan)
    while low < high:  # denominators shrink with the scale
        middle = (low + high) // 2
        least = least_of(sharpened(weights, config, heads, SCALES[middle]), config, batches, LEAST)
        logger.info("keys x %.2f: least denominator %s%.1e", SCALES[middle], "at most " * (least < LEAST), least)
        if least >= LEAST:
            low, best = middle + 1, (SCALES[middle], least)
        else:
            high = middle
    return best


def calibrate(
    checkpoint: Checkpoint, tokenizer: Tokenizer, prompts: Sequence[WorkItem], mixed: Sequence[torch.Tensor]
) -> Calibration:
    """Find the heads and the scale, and measure what they gain; nothing is written.

    Args:
        prompts: on which the capacity is measured.
        mixed: token ids [B, T] of prompts on which denominators are looked at.

    Raises:
        ConfigError: there is no memory, or sharpening would not help.
    """
    config, diagnoser = checkpoint.config, open_diagnoser(checkpoint, tokenizer)
    before = capacity(diagnoser, prompts)
    if before["right"] * 2 <= before["samples"]:
        raise _no_use(
            f"it answers {before['right']} of {before['samples']} prompts of {_span(before['tokens'])} tokens: "
            "the haystack is not what it fails on"
        )
    weights, heads = diagnoser.weights, chosen_heads(before)
    least_before = least_of(weights, config, mixed)
    scale, least = largest_safe(weights, config, heads, mixed)
    if scale == 1.0:
        raise _no_use(f"keys x {SCALES[0]} already divide by less than {LEAST:.0e} (now {least_before:.1e})")
    with tempfile.TemporaryDirectory() as folder:
        changed = Checkpoint(written(checkpoint, heads, scale, Path(folder) / checkpoint.folder.name))
        after = capacity(open_diagnoser(changed, tokenizer), prompts)
    _refuse_no_gain(before, after, scale)
    return Calibration(heads, scale, before, after, least_before, least, sum(len(ids) for ids in mixed))


def calibrate_into(checkpoint: Checkpoint, tokenizer: Tokenizer, save_path: Path) -> tuple[Calibration, Path]:
    """Calibrate on prompts that are made here, and save; the step folder.

    Raises:
        ConfigError: there is no memory, sharpening would not help, or something is at `save_path` already.
    """
    refuse_without_memory(checkpoint)
    refuse_existing(save_path)
    length = checkpoint.config.segment_length
    assert length is not None
    prompts = passkeys(tokenizer, length, MEASURED_SEGMENTS, MEASURED // 4)
    found = calibrate(checkpoint, tokenizer, prompts, mixed_prompts(tokenizer, length))
    return found, save(checkpoint, found, save_path)


def written(checkpoint: Checkpoint, heads: Sequence[tuple[int, int]], key_scale: float, folder: Path) -> Path:
    """Write the checkpoint with these heads sharpened, everything else and all dtypes as they are; the step folder."""
    weights = {name: checkpoint.read(name) for name in checkpoint.specs}
    text = (checkpoint.folder / "config.yaml").read_text()
    return write_checkpoint(folder, sharpened(weights, checkpoint.config, heads, key_scale), yaml.safe_load(text))


def save(checkpoint: Checkpoint, found: Calibration, save_path: Path) -> Path:
    """Write `save_path/STEP`, `latest.txt` and the tokenizer that lies beside the checkpoint, if one does.

    Raises:
        ConfigError: something is at `save_path` already.
    """
    refuse_existing(save_path)
    folder = written(checkpoint, found.heads, found.key_scale, save_path / checkpoint.folder.name)
    beside = checkpoint.folder.parent / "tokenizer"
    if beside.is_dir():
        shutil.copytree(beside, save_path / "tokenizer")
    return folder


def refuse_existing(save_path: Path) -> None:
    if save_path.exists() and (not save_path.is_dir() or any(save_path.iterdir())):
        raise ConfigError(f"--save-path {save_path} is not empty", valid="a new or an empty folder")


def _refuse_no_gain(before: dict[str, Any], after: dict[str, Any], scale: float) -> None:
    if after["right"] < before["right"]:
        raise _no_use(
            f"keys x {scale} cost right answers: {after['right']} of {after['samples']} instead of {before['right']}"
        )
    lengths = [
        math.inf if report["breaks"]["tokens"] is None else report["breaks"]["tokens"] for report in (before, after)
    ]
    if math.isinf(lengths[0]) or lengths[1] < GAIN * lengths[0]:
        shown = ["more than was tried" if math.isinf(n) else f"{n:,.0f} tokens" for n in lengths]
        raise _no_use(f"half of the prompts break at {shown[1]} with keys x {scale}, at {shown[0]} without")


def _no_use(reason: str) -> ConfigError:
    return ConfigError(
        f"calibrating this checkpoint would not help: {reason}",
        next_step="infini-eval diagnose shows what does fail, with --capacity how long a context holds",
    )


def _span(tokens: Sequence[int]) -> str:
    return f"{tokens[0]:,}" if tokens[0] == tokens[-1] else f"{tokens[0]:,} to {tokens[-1]:,}"


def passkeys(tokenizer: Tokenizer, length: int, segments: int, per_depth: int, **more: Any) -> list[WorkItem]:
    """Passkey prompts of `segments` segments with needles at depths 0 to 75, the answer anywhere in the last segment."""
    config = GenerateConfig(
        context_lengths=(segments * length,), depths=(0, 25, 50, 75), num_prompts=per_depth, segment_length=length,
        question_phase="jitter",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        made = generate_dataset(replace(config, **more), Path(folder) / "prompts.parquet", tokenizer)
        samples = load_samples(str(made.path)).samples
        return [prepare_sample(sample, TASK.locate(sample), tokenizer, length) for sample in samples]


def mixed_prompts(tokenizer: Tokenizer, length: int, prompts: int = MIXED) -> list[torch.Tensor]:
    """Token ids [B, T] of at least `prompts` prompts: 1 to 9 digits in two kinds of haystack, and random tokens.

    A third of them each; of three and four segments, because a memory of few segments has the smallest denominators.
    """
    digits = tuple(range(1, 10))
    batches: list[torch.Tensor] = []
    rng = torch.Generator().manual_seed(0)
    for haystack in (None, "english", "noise"):  # what a scale fails on first stands first
        for segments, phase in ((3, "border"), (4, str(length // 2))):
            rows = torch.randint(tokenizer.vocab_size, (math.ceil(prompts / 6), segments * length), generator=rng)
            if haystack is not None:
                made = passkeys(
                    tokenizer, length, segments, math.ceil(prompts / 24), num_digits=digits, distinct_keys="cell",
                    haystack=haystack, question_phase=phase, seed=1,
                )  # fmt: skip
                rows = torch.from_numpy(np.stack([item.ids.astype(np.int64) for item in made]))
            batches += rows.split(AT_ONCE)
    return batches
