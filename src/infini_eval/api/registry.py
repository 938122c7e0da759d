"""From a public name to what implements it: tasks, scorers, backends, reports and exports, ours and those of other packages.

Ours are found by looking into the package of their kind: every `Task`, `Scorer`, `Report` and `Export` that stands in a
module there (or in its table `TASKS`), under its own name; every module of `infini_eval.backends` without an underscore,
under the module's name. Other distributions add theirs as entry points of the group `infini_eval.<kind>`.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import inspect
import pkgutil
from dataclasses import replace
from typing import Any, Literal, cast

from infini_eval.api.backend import Backend, LazyBackend
from infini_eval.api.export import Export
from infini_eval.api.report import Report
from infini_eval.api.scorer import Scorer
from infini_eval.api.task import Task
from infini_eval.config import EvalConfig, ModelSettings, WeightSettings
from infini_eval.errors import ConfigError, did_you_mean
from infini_eval.foreign import shown

Kind = Literal["tasks", "scorers", "backends", "reports", "exports"]
_TYPES: dict[str, type] = {"tasks": Task, "scorers": Scorer, "reports": Report, "exports": Export}
BackendFace = LazyBackend | type[Backend]
MODEL_PARTS = (WeightSettings, ModelSettings)  # settings of backends that stand in EvalConfig.model


def names(kind: Kind) -> list[str]:
    """Every name of that kind, sorted."""
    own = _own_backends() if kind == "backends" else _own(kind)
    return sorted({*own, *_entry_points(kind)})


def load(kind: Kind, name: str) -> Any:
    """The object behind a name: a Task, a Scorer, a Report, an Export, or a class of backends.

    Raises:
        ConfigError: there is none of that name; it names the nearest, or lists all where none comes near.
    """
    if kind == "backends":
        face = backend_face(name)
        return face.load() if isinstance(face, LazyBackend) else face
    name = _known(kind, name)
    own = _own(kind).get(name)
    return own if own is not None else _plugged_in(kind, name)


def task(name: str) -> Task:
    """The task of that name; ConfigError where there is none."""
    return cast(Task, load("tasks", name))


def scorer(name: str) -> Scorer:
    """The scorer of that name, with its setting where one stands behind a colon; ConfigError where there is none."""
    base, colon, setting = name.partition(":")
    found = cast(Scorer, load("scorers", base))
    return found.with_setting(setting) if colon else found


def export(name: str) -> Export:
    """The export of that name; ConfigError where there is none."""
    return cast(Export, load("exports", name))


def exports() -> dict[str, Export]:
    """Every export that can be imported, by name; one that cannot is reported when it is asked for."""
    found: dict[str, Export] = {}
    for name in names("exports"):
        with contextlib.suppress(ConfigError):
            found[name] = export(name)
    return found


def reports(when: str) -> list[Report]:
    """The reports that are written then ("always", "page" or "asked"), in the order of their names."""
    found: list[Report] = [load("reports", name) for name in names("reports")]
    return [one for one in found if one.when == when]


def backend_face(name: str) -> BackendFace:
    """What command lines must know of a backend: its flags, and whether it computes here. Imports nothing heavy of ours."""
    name = _known("backends", name)
    own = _own_backends().get(name)
    if own is None:
        return cast(BackendFace, _plugged_in("backends", name))
    return own if isinstance(own, LazyBackend) else _backend_in(importlib.import_module(own))


def backend_faces() -> dict[str, BackendFace]:
    """Every backend that can be imported, by name, ours first; one that cannot is reported when it is asked for."""
    own = _own_backends()
    faces: dict[str, BackendFace] = {}
    for name in [*own, *(name for name in _entry_points("backends") if name not in own)]:
        with contextlib.suppress(ConfigError):
            faces[name] = backend_face(name)
    return faces


def backend_and_model(model: str) -> tuple[str | None, str]:
    """Take "fake:any" apart into a backend's name and what follows it; (None, model) where no backend stands before a colon."""
    name, colon, rest = model.partition(":")
    known = colon and rest and _plain(name) in names("backends")
    return (_plain(name), rest) if known else (None, model)


def for_backend(config: EvalConfig) -> EvalConfig:
    """The configuration with what its backend implies: its settings, with defaults where none were given, in its order.

    A backend that computes nothing in this process takes no device of this machine.

    Raises:
        ConfigError: no such backend, or settings that it does not read.
    """
    face = backend_face(config.backend)
    kinds = [kind for kind in face.settings if kind not in MODEL_PARTS]
    if foreign := [one for one in config.backend_settings if not isinstance(one, tuple(kinds))]:
        raise ConfigError(
            f"{type(foreign[0]).__name__}: the backend {config.backend} reads no such settings",
            valid=", ".join(kind.__name__ for kind in kinds) or "none",
        )
    config = replace(config, backend_settings=tuple(config.settings(kind) for kind in kinds))
    if face.computes_here or config.model.device is not None:
        return config
    return replace(config, model=replace(config.model, device="cpu"))


def _known(kind: Kind, name: str) -> str:
    name = name.replace("-", "_")
    known = names(kind)
    if name not in known:
        near = did_you_mean(name, known)
        problem = f"unknown {kind.removesuffix('s')} {shown(name)}{near}"
        if near:  # one line: the list would only hide it
            raise ConfigError(problem)
        raise ConfigError(
            problem,
            valid=", ".join(known),
            next_step=f"choose one of these, or add one: an object in infini_eval/{kind}, or an entry point of the group "
            f"infini_eval.{kind} (CONTRIBUTING.md)",
        )
    return name


@functools.cache
def _own(kind: str) -> dict[str, Any]:
    """The objects of one kind that stand in the modules of its package."""
    package = importlib.import_module(f"infini_eval.{kind}")
    found: dict[str, Any] = {}
    for module in pkgutil.iter_modules(package.__path__):
        members: dict[str, Any] = vars(importlib.import_module(f"{package.__name__}.{module.name}"))
        for member in [*members.values(), *members.get("TASKS", {}).values()]:
            if isinstance(member, _TYPES[kind]):
                found[_plain(member.name)] = member  # type: ignore[attr-defined]
    return found


@functools.cache
def _own_backends() -> dict[str, LazyBackend | str]:
    """By name: the face of a heavy backend, or the module that holds a light one."""
    package = importlib.import_module("infini_eval.backends")
    modules = [
        module.name
        for module in pkgutil.iter_modules(package.__path__)
        if not module.ispkg and not module.name.startswith("_")
    ]
    lazy: dict[str, LazyBackend] = package.LAZY
    light = {name: f"{package.__name__}.{name}" for name in modules if name not in lazy}
    return {**lazy, **light}


def _backend_in(module: Any) -> type[Backend]:
    """The one class of a module that is a backend."""
    own = [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, Backend)
        and not inspect.isabstract(value)
        and value.__module__ == module.__name__
    ]
    assert len(own) == 1, f"{module.__name__} holds {len(own)} backends"
    return own[0]


def _plugged_in(kind: Kind, name: str) -> Any:
    """What another distribution's entry point gives; ConfigError where it cannot be had or is something else."""
    point = _entry_points(kind)[name]
    origin = f"{point.value} of {point.dist.name if point.dist else 'another package'}"
    try:
        found = point.load()
    except Exception as error:
        raise ConfigError(
            f"the {kind.removesuffix('s')} {shown(name)} ({origin}) cannot be imported: {type(error).__name__}: {error}",
            next_step="mend or uninstall that package",
        ) from error
    fits = _is_backend(found) if kind == "backends" else isinstance(found, _TYPES[kind])
    if not fits:
        wanted = "a class of infini_eval.Backend" if kind == "backends" else f"an infini_eval.{_TYPES[kind].__name__}"
        raise ConfigError(
            f"the {kind.removesuffix('s')} {shown(name)} ({origin}) is {type(found).__name__}", valid=wanted
        )
    return found


def _is_backend(found: Any) -> bool:
    return isinstance(found, LazyBackend) or (inspect.isclass(found) and issubclass(found, Backend))


def _entry_points(kind: str) -> dict[str, importlib.metadata.EntryPoint]:
    return {_plain(point.name): point for point in importlib.metadata.entry_points(group=f"infini_eval.{kind}")}


def _plain(name: str) -> str:
    return name.replace("-", "_")
