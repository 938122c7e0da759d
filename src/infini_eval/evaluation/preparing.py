"""Every prompt tokenised once by some rank: all ranks learn what planning needs of it; the ids are made again in time."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields, replace
from typing import Any

from infini_eval.api.backend import Backend, WorkItem, no_ids
from infini_eval.api.task import Task
from infini_eval.distributed.launch import World
from infini_eval.records import NeedlePosition, Sample

KEPT_BYTES = 16 << 20  # token ids (4 bytes each) that a rank keeps until they are computed; of the rest it keeps none
HEX = "hex"
HERE = ("sample", "ids")  # fields of WorkItem that never travel


def prepare_samples(task: Task, backend: Backend, samples: Sequence[Sample], world: World) -> list[WorkItem]:
    """All samples as the backend will see them, without the ids of those that this rank does not keep.

    Ranks share the work (r, r + world size, …) and exchange lengths, positions and excerpts.
    """
    rows = range(world.rank, len(samples), world.world_size)
    own = dict(zip(rows, _tokenised(task, backend, [samples[row] for row in rows], world), strict=True))
    facts = world.all_gather_object("prepared", [_facts(item) for item in own.values()])
    prepared = []
    for row, sample in enumerate(samples):
        rank, place = row % world.world_size, row // world.world_size
        prepared.append(own[row] if row in own else _from_facts(sample, facts[rank][place]))
    return prepared


def with_ids(prepared: WorkItem, backend: Backend) -> WorkItem:
    """The same with its token ids, made now unless they were kept."""
    return prepared if len(prepared.ids) else replace(prepared, ids=backend.token_ids(prepared.sample))


def _tokenised(task: Task, backend: Backend, samples: Sequence[Sample], world: World) -> Iterator[WorkItem]:
    """In order, on as many threads as this rank computes with."""
    import torch

    room, lock = KEPT_BYTES, threading.Lock()

    def tokenise(sample: Sample) -> WorkItem:
        nonlocal room
        world.raise_if_stopped()
        item = backend.prepare(sample, task.locate(sample))
        with lock:
            keep = item.ids.nbytes <= room
            room -= item.ids.nbytes if keep else 0
        return item if keep else replace(item, ids=no_ids())

    pool = ThreadPoolExecutor(torch.get_num_threads(), thread_name_prefix="tokenise")
    try:
        yield from pool.map(tokenise, samples)
    finally:
        pool.shutdown(cancel_futures=True)


def _facts(prepared: WorkItem) -> dict[str, Any]:
    """What travels to the other ranks, as JSON; bytes as their hexadecimal digits."""
    facts = {field.name: getattr(prepared, field.name) for field in fields(prepared) if field.name not in HERE}
    digits = {name: {HEX: value.hex()} for name, value in facts.items() if isinstance(value, bytes)}
    return facts | digits | {"position": asdict(prepared.position)}


def _from_facts(sample: Sample, facts: Mapping[str, Any]) -> WorkItem:
    of_bytes = {name: bytes.fromhex(value[HEX]) for name, value in facts.items() if _is_hex(value)}
    position = NeedlePosition(**facts["position"])
    return WorkItem(sample=sample, ids=no_ids(), **{**facts, **of_bytes, "position": position})


def _is_hex(value: Any) -> bool:
    return isinstance(value, dict) and list(value) == [HEX]
