"""The text around the needle of recorded samples, from the run's data set where that lies on this disk; records hold none."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infini_eval.api import registry
from infini_eval.data.reading import find_files, load_data
from infini_eval.errors import InfiniEvalError
from infini_eval.records import Sample
from infini_eval.reports.model_facts import model_facts

WIDTH = 700  # characters on either side of the needle
QUESTION = 400  # characters of the prompt's end
LARGEST = 256_000_000  # bytes of a data set's files: all of it is read


@dataclass(frozen=True)
class Around:
    """A stretch of a prompt: `text`, with the needle at text[start:end] (both None without one), and the prompt's end."""

    text: str
    start: int | None
    end: int | None
    question: str


@dataclass(frozen=True)
class Prompts:
    """The stretches by the sha256 of their prompt; `missing` says why there are none, or fewer than asked for."""

    found: Mapping[str, Around]
    missing: str | None = None


def around_needles(manifest: Mapping[str, Any] | None, wanted: Collection[str]) -> Prompts:
    """The text around the needles of the prompts with these sha256, as far as the manifest's data set is on this disk.

    Nothing is fetched; a data set of more than 256 MB is not read.
    """
    source = ((manifest or {}).get("environment") or {}).get("eval_dataset_path")
    if not source:
        return Prompts({}, "the run does not say which data set it read")
    if not Path(source).expanduser().exists():
        return Prompts({}, f"the data set {source} is not at this place of this machine")
    try:
        size = sum(path.stat().st_size for path in find_files(source).files)
        if size > LARGEST:
            return Prompts({}, f"the data set {source} has {size / 1e6:,.0f} MB, too many to search for these prompts")
        task = registry.task(model_facts(manifest).task)
        samples = load_data(task, source).samples
    except (InfiniEvalError, OSError) as error:
        return Prompts({}, f"the data set {source} cannot be read: {str(error).splitlines()[0]}")
    asked = set(wanted)
    found = {sha: _around(sample, task.locate(sample)) for sample in samples if (sha := sample.prompt_sha256) in asked}
    changed = f"{len(asked) - len(found)} of these prompts are not in the data set {source} any more"
    return Prompts(found, changed if len(found) < len(asked) else None)


def _around(sample: Sample, needle: tuple[int, int] | None) -> Around:
    prompt = sample.prompt
    question = prompt[-QUESTION:]
    if needle is None:
        return Around(prompt[: 2 * WIDTH], None, None, question)
    left, right = max(0, needle[0] - WIDTH), min(len(prompt), needle[1] + WIDTH)
    return Around(prompt[left:right], needle[0] - left, needle[1] - left, question)
