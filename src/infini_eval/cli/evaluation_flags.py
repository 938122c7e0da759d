"""What every command takes that asks any task of any backend: its flags, and the one EvalConfig that they make."""

from __future__ import annotations

import argparse

from infini_eval.api import registry
from infini_eval.cli import flags
from infini_eval.config import EvalConfig
from infini_eval.errors import ConfigError
from infini_eval.options import option_pairs, token_count


def add_evaluation_arguments(parser: argparse.ArgumentParser) -> None:
    """What every command takes that asks any task of any backend."""
    what = parser.add_argument_group("what is asked of whom")
    flags.add_flag(
        what,
        "--task",
        required=True,
        metavar="NAME",
        help="what is asked: passkey, needle, ... (an unknown name lists them all); ruler: the suite of 13 tasks",
    )
    flags.add_flag(
        what,
        "--backend",
        metavar="NAME",
        help="who answers: nanotron, transformers, vllm, openai, gemini, fake (default: as --model says: fake:any, or what "
        "the folder holds)",
    )
    flags.add_flag(
        what,
        "--model",
        required=True,
        dest="model_path",
        metavar="MODEL",
        help="checkpoint folder, hub id, or the name that the server gives its model; BACKEND:MODEL says both (fake:any "
        "needs no files)",
    )
    flags.add_flag(
        what,
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of the task's own; repeatable (an unknown name lists them all)",
    )
    flags.add_flag(
        what,
        "--context-window",
        type=token_count,
        metavar="N",
        help="tokens that the model reads at most, answer included: longer prompts are named before anything runs",
    )
    flags.add_run_flags(parser.add_argument_group("run"))
    flags.add_data_flags(parser.add_argument_group("data"))
    flags.add_sampling_flags(parser.add_argument_group("sampling"))
    flags.add_topology_flags(parser.add_argument_group("processes"))
    kernels = {kernel: None for face in registry.backend_faces().values() for kernel in face.attention}
    for settings, backends in readers_of_settings().items():
        group = parser.add_argument_group(_title(settings), f"backends: {', '.join(backends)}")
        flags.add_options(group, settings, choices={"attn_implementation": tuple(kernels)})
    for action in parser._actions:
        if action.dest in ("scorer", "max_new_tokens"):
            action.default, action.help = None, (action.help or "").replace("%(default)s", "the task's own")


def run_config(args: argparse.Namespace) -> EvalConfig:
    """The parsed flags as one EvalConfig; scorer and answer budget are the task's where they are not given."""
    backend, model = _backend_and_model(args)
    face = registry.backend_face(backend)
    _refuse_foreign_flags(args, backend, face)
    task = registry.task(args.task)
    args.scorer = args.scorer or task.scorers[0]
    args.max_new_tokens = args.max_new_tokens or task.max_new_tokens
    config = flags.eval_config(
        args,
        model,
        task=task.name,
        backend=backend,
        backend_settings=tuple(
            flags.read_options(args, one) for one in face.settings if one not in registry.MODEL_PARTS
        ),
        task_options=tuple(option_pairs(args.option).items()),
        context_window=args.context_window,
    )
    task.with_defaults(dict(config.task_options))  # an unknown option is said before torch is imported
    return registry.for_backend(config)


def _backend_and_model(args: argparse.Namespace) -> tuple[str, str]:
    """Who answers and what it is given, from --backend or from what --model says."""
    if args.backend is not None:
        return args.backend.replace("-", "_"), args.model_path
    from infini_eval.library import backend_and_name

    return backend_and_name(args.model_path)


def readers_of_settings() -> dict[type, list[str]]:
    """Every settings class of a backend, with the names of the backends that read it."""
    readers: dict[type, list[str]] = {}
    for name, face in registry.backend_faces().items():
        for settings in face.settings:
            readers.setdefault(settings, []).append(name)
    return readers


def _title(settings: type) -> str:
    return str(getattr(settings, "TITLE", settings.__name__))


def _refuse_foreign_flags(args: argparse.Namespace, backend: str, face: registry.BackendFace) -> None:
    """A flag of another backend is an error, not silently ignored."""
    for settings, backends in readers_of_settings().items():
        if settings not in face.settings and (foreign := flags.given_flags(args, settings)):
            raise ConfigError(
                f"{', '.join(foreign)}: for {_title(settings)}, but the backend is {backend}",
                valid=f"--backend {' or '.join(backends)}",
            )
    if args.attn_implementation not in face.attention:
        raise ConfigError(
            f"--attn-implementation {args.attn_implementation}: not with the backend {backend}",
            valid=", ".join(face.attention),
        )
