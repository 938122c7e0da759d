"""A native model for another harness: from the arguments that harness passes on, on one process or on torchrun's."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import Field, dataclass
from itertools import count
from typing import Any, TypeVar

import numpy as np
import torch

from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.config import ModelSettings, Topology, WeightSettings
from infini_eval.distributed.launch import World, launch
from infini_eval.distributed.mesh import Mesh
from infini_eval.distributed.store import LaunchEnvironment
from infini_eval.engine.fixed_decode import check_acceleration
from infini_eval.engine.native_model import NativeModel, load_replica, mesh_shape
from infini_eval.errors import ConfigError, did_you_mean
from infini_eval.options import Option, options_of

logger = logging.getLogger(__name__)
Result = TypeVar("Result")  # of a row: what JSON can hold

_OPTIONS: dict[str, tuple[type, Field[Any], Option]] = {
    one.name: (topology_or_model, one, found)
    for settings, topology_or_model in (
        (WeightSettings, ModelSettings),
        (ModelSettings, ModelSettings),
        (Topology, Topology),
    )
    for one, found in options_of(settings)
}


@dataclass(frozen=True)
class OpenedModel:
    """A model and where this process stands among those of a launch (world None: alone); `close` parts from them."""

    model: NativeModel
    mesh: Mesh
    world: World | None = None
    close: Callable[[], None] = lambda: None

    def over_replicas(
        self,
        costs: Sequence[int],
        kin: Sequence[Hashable],
        work: Callable[[list[int]], Sequence[Result]],
    ) -> list[Result]:
        """Deal rows to the replicas and give every process all results, in the order of the rows.

        Args:
            costs: of each row, for shares of about the same size.
            kin: rows that are equal here stay together, since they share prefixes.
            work: computes some rows, by number; the results are JSON values.
        """
        mine = deal(costs, kin, self.mesh.shape.dp)[self.mesh.dp_rank]
        found: list[Any] = [list(pair) for pair in zip(mine, work(mine), strict=True)]
        if self.world is None or self.mesh.shape.dp == 1:
            return [result for _, result in sorted(found, key=lambda pair: pair[0])]
        parts = self.world.all_gather_object(f"harness/{next(_GATHERED)}", found)
        merged = {row: result for part in parts for row, result in part}  # shards and stages of a replica say the same
        return [merged[row] for row in range(len(costs))]

    def scores(
        self,
        rows: Sequence[Sequence[int]],
        scored: Sequence[int],
        kin: Sequence[Hashable],
        batch_size: int | None = None,
        on_tokens: Callable[[int], None] | None = None,
    ) -> list[tuple[float, bool]]:
        """The log-probability of each row's last tokens, and whether all are the likeliest; (0, True) of no tokens.

        Args:
            rows, scored: as of `NativeModel.score`; a row of which nothing is scored may have any length.
            kin: rows with the same context.
        """
        some = [row for row, tokens in enumerate(scored) if tokens]

        def compute(numbers: list[int]) -> list[list[Any]]:
            found = self.model.score(
                [np.asarray(rows[some[number]]) for number in numbers],
                [scored[some[number]] for number in numbers],
                batch_size=batch_size,
                vocabulary=self.model.tokenizer.vocab_size,
                on_tokens=on_tokens,
            )
            return [[float(one.logprobs.sum(dtype=np.float64)), bool(one.greedy.all())] for one in found]

        results = [(0.0, True)] * len(rows)
        answers = self.over_replicas([len(rows[row]) for row in some], [kin[row] for row in some], compute)
        for row, (logprob, greedy) in zip(some, answers, strict=True):
            results[row] = (logprob, greedy)
        return results


_GATHERED = count()  # a name of the common store is used once


def deal(costs: Sequence[int], kin: Sequence[Hashable], replicas: int) -> list[list[int]]:
    """Deal rows to replicas: the dearest family first, each to the replica that has least; rows in order."""
    families: dict[Hashable, list[int]] = {}
    for row, family in enumerate(kin):
        families.setdefault(family, []).append(row)
    shares: list[list[int]] = [[] for _ in range(replicas)]
    loads = [0] * replicas
    ordered = sorted(families.values(), key=lambda rows: (-sum(costs[row] for row in rows), rows[0]))
    for rows in ordered:
        least = loads.index(min(loads))
        shares[least] += rows
        loads[least] += sum(costs[row] for row in rows)
    return [sorted(share) for share in shares]


def open_model(checkpoint: str, tokenizer: str | None, device: str | None, arguments: Mapping[str, Any]) -> OpenedModel:
    """Load a checkpoint in this process, or this process's part of it where torchrun started several.

    Args:
        tokenizer: a folder, a file or a hub name; None: the checkpoint's.
        device: as the harness says it: "cuda", "cuda:0", "cpu" or None. A GPU that is not there is the CPU, with a note.
        arguments: values of the settings ModelSettings and Topology, by name, as text, numbers or booleans.

    Raises:
        ConfigError: an argument is unknown, or has a value that it cannot have.
    """
    settings, topology = read_settings({"device": usable_device(device), **arguments})
    opened = Checkpoint(checkpoint)
    for note in opened.notes:
        logger.warning("%s", note)
    environment = LaunchEnvironment.read()
    if environment.world_size == 1:
        mesh = Mesh(mesh_shape(opened, topology, 1))
        model = NativeModel.load(opened, settings)
        model.tokenizer_path = tokenizer
        check_acceleration(settings, model.llama.device, 1, 1)
        return OpenedModel(model, mesh)
    stack = contextlib.ExitStack()
    world = stack.enter_context(launch(settings.device))
    atexit.register(stack.close)  # a harness has no place to say that it is done with a model
    mesh = Mesh.build(mesh_shape(opened, topology, world.world_size), world.rank)
    model = load_replica(opened, settings, mesh, world.device)
    model.tokenizer_path = tokenizer
    return OpenedModel(model, mesh, world, stack.close)


def usable_device(asked: str | None) -> str | None:
    """Take the device that a harness names by default: where torch sees no GPU, cuda means the CPU, and a note says so."""
    if asked is None or asked == "auto":
        return None
    name = str(asked)
    if name != "cpu" and name.partition(":")[0] != "cuda":
        raise ConfigError(f"unknown device {name!r}", valid="cpu, cuda, cuda:0")
    if name != "cpu" and not torch.cuda.is_available():
        logger.warning("device %s was asked for, but torch sees no GPU here: this runs on the CPU", name)
        return "cpu"
    return name


def read_settings(arguments: Mapping[str, Any]) -> tuple[ModelSettings, Topology]:
    """Read the settings among a harness's arguments; ConfigError for one that is none of them, or has a wrong value."""
    values: dict[type, dict[str, Any]] = {ModelSettings: {}, Topology: {}}
    for name, given in arguments.items():
        if name not in _OPTIONS:
            raise ConfigError(
                f"unknown model argument {name!r}{did_you_mean(name, _OPTIONS)}", valid=", ".join(sorted(_OPTIONS))
            )
        settings, one, found = _OPTIONS[name]
        if given is not None:
            values[settings][name] = _value(name, given, one, found)
    return ModelSettings(**values[ModelSettings]), Topology(**values[Topology])


def _value(name: str, given: Any, one: Field[Any], found: Option) -> Any:
    """The value of an argument, which came as text, or as what a harness takes text for."""
    if isinstance(one.default, bool) or found.values is not None:
        known = {"true": True, "false": False, **(found.values or {})}
        choices: Sequence[Any] = sorted(known)
        text = str(given).lower()
        if text in known:
            return known[text]
    else:
        text = {True: "on", False: "off"}[given] if isinstance(given, bool) else str(given)  # YAML reads on as true
        choices = found.choices or ()
        if found.choices is None:
            try:
                return found.read(text) if found.read else text
            except argparse.ArgumentTypeError as error:
                raise ConfigError(f"model argument {name}: {error}") from None
        if text in found.choices:
            return text
    raise ConfigError(f"model argument {name}={given}", valid=", ".join(map(str, choices)))
