"""Made-up run folders in the real format, for tests and for trying reports without a model."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infini_eval.records import NeedlePosition, Response, RunManifest, Sample, SampleRecord, Score

DEPTHS = tuple(range(0, 101, 5))
_SENTENCES = (
    "The grass is green.", "The sky is blue.", "The sun is yellow.", "The harbour gate 4711 stays shut in winter.",
    "Here we go.", "There and back again.", "A tram leaves every 12 minutes.",
)  # fmt: skip


@dataclass(frozen=True)
class FakeRun:
    """What a made-up run looks like.

    `accuracy` is the chance of a right answer, or a function of (context length, depth in percent, compressions).
    `haystacks` texts are shared by the samples of all depths; `haystack_spread` is how far a haystack's luck moves the
    chance of all its samples alike. `jitter` spreads the question's phase; without it all samples of a cell share one.
    `seed` decides the data, `model_seed` with it which answers are right. The first `failed` samples fail, and those for
    which `fails(length, depth, number in its cell)` holds. `real_depth` gives each sample's measured depth for its label.
    """

    lengths: Sequence[int] = (1024,)
    depths: Sequence[float] = DEPTHS
    per_cell: int = 10
    accuracy: float | Callable[[int, float, int], float] = 0.95
    segment_length: int | None = 128
    name: str = "0.7M Infini-Attention"
    haystacks: int = 10
    haystack_spread: float = 0.0
    jitter: bool = False
    seed: int = 0
    model_seed: int = 0
    failed: int = 0
    fails: Callable[[int, float, int], bool] = lambda length, depth, number: False
    real_depth: Callable[[float], float] | None = None
    model: dict[str, Any] = field(default_factory=dict)
    identity: dict[str, Any] = field(default_factory=dict)


def write_fake_run(folder: Path, run: FakeRun = FakeRun(), *, keep: int | None = None, files: int = 1) -> Path:
    """Write manifest.json and samples/*.jsonl; `keep` stops after so many samples, as an interrupted run does."""
    samples = folder / "samples"
    samples.mkdir(parents=True, exist_ok=True)
    planned = len(run.lengths) * len(run.depths) * run.per_cell
    (folder / "manifest.json").write_text(json.dumps(fake_manifest(run, planned).to_json(), indent=2))
    outs = [(samples / f"replica{number}.jsonl").open("w") for number in range(files)]
    for number, record in enumerate(fake_records(run)):
        if keep is not None and number >= keep:
            break
        outs[number % files].write(json.dumps(record.to_json()) + "\n")
    for out in outs:
        out.close()
    return folder


def fake_manifest(run: FakeRun, planned: int) -> RunManifest:
    """The manifest of a made-up run."""
    model = {
        "name": run.name, "segment_length": run.segment_length, "parameters": 733_000, "kind": "infini_llama",
        "dtype": "float32", "memory": "on", "memory_query": "rotary", **run.model,
    }  # fmt: skip
    identity = {
        "task": "passkey", "scorer": "exact_digits", "checkpoint": {"path": "checkpoints/infini-demo/100"},
        "data": {"path": "data/demo.parquet", "fingerprint": f"{run.seed:08x}"}, "seed": 42,
        "num_samples": run.per_cell, "max_new_tokens": 15, **run.identity,
    }  # fmt: skip
    environment = {"dp": 1, "tp": 1, "pp": 1, "device": "cpu", "started": "2025-08-14T14:30:22+00:00"}
    return RunManifest(identity=identity, model=model, environment=environment, samples_planned=planned)


def fake_records(run: FakeRun) -> Iterator[SampleRecord]:
    """The records of a made-up run, the same for the same seed."""
    rng = random.Random(run.seed)
    model = random.Random(f"{run.seed} {run.model_seed}")  # the same data whatever the model answers
    luck = [model.gauss(0, run.haystack_spread) for _ in range(run.haystacks)]
    made = 0
    for length in run.lengths:
        for depth in run.depths:
            for number in range(run.per_cell):
                haystack = number % run.haystacks
                position = _position(run, length, depth, rng)
                chance = run.accuracy
                if callable(chance):
                    chance = chance(length, depth, position.compressions or 0)
                right = model.random() < chance + luck[haystack]
                cell = (f"{length}-{depth}-{number}", length, depth, haystack)
                failed = made < run.failed or run.fails(length, depth, number)
                real = {} if run.real_depth is None else {"real_depth": run.real_depth(depth)}
                yield _record(rng, model, cell, position, right, failed, real)
                made += 1


def _position(run: FakeRun, length: int, depth: float, rng: random.Random) -> NeedlePosition:
    start = min(30 + round((length - 70) * depth / 100), length - 40)
    end = start + 20
    segment = run.segment_length
    if segment is None:
        return NeedlePosition(start, end)
    last = length - 1 - (rng.randrange(segment) if run.jitter else 0)
    needle, question = (end - 1) // segment, max(end, last - 10) // segment
    phase = last % segment
    straddles = start // segment != needle
    return NeedlePosition(start, end, needle, question, question - needle, straddles, phase, phase + 5 > segment)


def _record(
    rng: random.Random, model: random.Random, cell: tuple[str, int, float, int], position: NeedlePosition,
    right: bool, failed: bool, real_depth: dict[str, float],
) -> SampleRecord:  # fmt: skip
    name, length, depth, haystack = cell
    answer = str(rng.randrange(1000, 10000))
    text = f"{answer}. " if right else _wrong(answer, model)
    before, after = (" ".join(rng.sample(_SENTENCES, 2)) for _ in range(2))
    excerpt = f"{before} The pass key is {answer}. Remember it. {answer} is the pass key. {after}"
    columns = {"haystack_id": f"haystack-{haystack}", **real_depth}
    sample = Sample(name, f"{name}: {excerpt}", answer, depth, length, 0, 4, columns)
    response = Response(text, [1] * 5, length, "stop", 0.125)
    if failed:
        response = Response("", [], length, "error", 0.125, "out of memory")
    digits = "".join(c for c in text.split(".")[0] if c.isdecimal()) or None
    scores = {"exact_digits": Score(float(digits == answer), digits), "contains": Score(float(answer in text))}
    return SampleRecord(sample, response, scores, "exact_digits", position, excerpt)


def _wrong(answer: str, rng: random.Random) -> str:
    """A wrong answer of one of the kinds that models give: nothing, a distractor, a digit off, too short."""
    kind = rng.randrange(4)
    place = rng.randrange(len(answer))
    digit = str((int(answer[place]) + 1) % 10)
    return ("", "4711. ", answer[:place] + digit + answer[place + 1 :] + ". ", answer[:-1] + ". ")[kind]
