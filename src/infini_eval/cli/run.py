"""What every command takes that asks any task of any backend: its flags, and the one EvalConfig that they make."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace

from infini_eval import registry
from infini_eval.cli import flags
from infini_eval.cli.backend_flags import (
    add_fake_flags,
    add_loading_flags,
    add_prompt_flags,
    add_request_flags,
    add_vllm_flags,
    backend_settings,
)
from infini_eval.cli.passkey import eval_config
from infini_eval.cli.values import option_pairs, token_count
from infini_eval.config import EvalConfig
from infini_eval.errors import ConfigError

COMPUTING_HERE = ("nanotron", "transformers")  # vLLM's workers must find CUDA untouched
COMPUTING = (*COMPUTING_HERE, "vllm")
ATTENTION = {
    "nanotron": ("sdpa", "flash_attn"),
    "transformers": ("sdpa", "flash_attn", "eager", "flex"),
    "vllm": ("sdpa",),  # the flag's default: vLLM chooses its kernels itself
}

# Groups of flags and the backends that read them: a flag given to another backend is an error, not silently ignored.
GROUPS: dict[str, tuple[tuple[str, ...], Callable[[argparse._ActionsContainer], None]]] = {
    "weights": (COMPUTING, lambda group: flags.add_weights_flags(group, ATTENTION["transformers"])),
    "nanotron": (("nanotron",), flags.add_native_flags),
    "prompts": (("transformers", "vllm", "openai", "gemini"), add_prompt_flags),
    "Hugging Face models": (("transformers", "vllm"), add_loading_flags),
    "vllm": (("vllm",), add_vllm_flags),
    "servers": (("openai", "gemini"), add_request_flags),
    "fake": (("fake",), add_fake_flags),
}


def add_evaluation_arguments(parser: argparse.ArgumentParser) -> None:
    """What every command takes that asks any task of any backend."""
    what = parser.add_argument_group("what is asked of whom")
    flags.add_flag(
        what,
        "--task",
        required=True,
        metavar="NAME",
        help="what is asked: passkey, needle, ... (an unknown name lists them all)",
    )
    flags.add_flag(
        what,
        "--backend",
        required=True,
        metavar="NAME",
        help="who answers: nanotron, transformers, vllm, openai, gemini, fake",
    )
    flags.add_flag(
        what,
        "--model",
        required=True,
        dest="model_path",
        metavar="MODEL",
        help="checkpoint folder, hub id, or the name that the server gives its model",
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
    for title, (backends, add) in GROUPS.items():
        add(parser.add_argument_group(title, f"backends: {', '.join(backends)}"))
    parser.set_defaults(scorer=None, max_new_tokens=None)


def run_config(args: argparse.Namespace) -> EvalConfig:
    """The parsed flags as one EvalConfig; scorer and answer budget are the task's where they are not given."""
    backend = args.backend.replace("-", "_")
    _check_name("backends", backend)
    _refuse_foreign_flags(args, backend)
    task = registry.load("tasks", args.task)
    args.scorer = args.scorer or task.scorers[0]
    args.max_new_tokens = args.max_new_tokens or task.max_new_tokens
    config = eval_config(
        args,
        args.model_path,
        task=task.name,
        backend=backend,
        backend_settings=backend_settings(args),
        task_options=tuple(option_pairs(args.option).items()),
        context_window=args.context_window,
    )
    task.with_defaults(dict(config.task_options))  # an unknown option is said before torch is imported
    if backend in COMPUTING_HERE or config.model.device is not None:
        return config
    return replace(config, model=replace(config.model, device="cpu"))  # nothing is computed in this process


def _check_name(kind: str, name: str) -> None:
    """A wrong name is said before anything heavy is imported."""
    if name not in registry.names(kind):
        registry.load(kind, name)


def _refuse_foreign_flags(args: argparse.Namespace, backend: str) -> None:
    for title, (backends, add) in GROUPS.items():
        own = flags.make_parser()
        add(own)
        given = [
            action.option_strings[0]
            for action in own._actions
            if getattr(args, action.dest, action.default) != action.default
        ]
        known = {name for readers, _ in GROUPS.values() for name in readers}
        if given and backend in known and backend not in backends:
            raise ConfigError(
                f"{', '.join(given)}: for {title}, but the backend is {backend}",
                valid=f"--backend {' or '.join(backends)}",
            )
    if args.attn_implementation not in ATTENTION.get(backend, ATTENTION["transformers"]):
        raise ConfigError(
            f"--attn-implementation {args.attn_implementation}: not with the backend {backend}",
            valid=", ".join(ATTENTION[backend]),
        )
