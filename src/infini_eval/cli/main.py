"""`infini-eval COMMAND`: finds the command's file, runs it, and turns mistakes into one message: users' status 2, ours 1."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from infini_eval._version import __version__
from infini_eval.cli.flags import Command, make_parser
from infini_eval.cli.output import OutputLost, safe_output, tell_of_our_mistake
from infini_eval.distributed.shutdown import tell_user, users_mistake
from infini_eval.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE, did_you_mean
from infini_eval.foreign import shown

# Each command is a module below infini_eval.cli with `add_arguments(parser)` and `run(args) -> exit status`, or a `Command`
# in one ("module:NAME"), imported only when it runs. --help shows GROUPS first, ALIASES and TOOLS below.
Entry = tuple[str, str]  # where the command is, one line for --help
GROUPS: dict[str, dict[str, Entry]] = {
    "evaluate": {
        "run": ("run", "any task on any backend: nanotron, transformers, vllm, openai, gemini, fake"),
        "grid": ("grid", "make needle trials at lengths and depths, and evaluate a checkpoint on them"),
        "judge": ("judge", "judge the answers of an aa_lcr run with any backend, and report their accuracy"),
        "model-comparison": ("model_comparison", "models against each other on a needle in a long text"),
        "lm-eval": (
            "lm_eval",
            "EleutherAI's lm-eval with the model `infini`: any of its tasks on a nanotron checkpoint",
        ),
    },
    "data": {
        "generate": ("generate", "make passkey, needle and RULER data of exact length and depth"),
        "demo": ("demo", "write the demo checkpoint, its tokenizer and data into a folder"),
        "data": ("data", "check a data set: `infini-eval data check FILE --tokenizer T`"),
    },
    "reports": {
        "analyze": ("analyze", "accuracy by depth with intervals, verdicts, summary.json, a page"),
        "view": ("view", "results in a browser: runs, heat maps, samples, diagnosis, comparisons; or as a folder"),
        "compare": ("compare", "runs on the same samples: differences with intervals and p-values"),
        "export": (
            "export",
            "for other tools: results as csv, parquet, lm-eval, TensorBoard, MLflow, W&B; checkpoints as hf",
        ),
        "track": ("track", "accuracy over the checkpoints of one training run"),
    },
    "models": {
        "inspect": ("inspect", "a checkpoint's topology, dtype and gates, and what stands out"),
        "diagnose": ("diagnose", "why retrieval works or fails: control, memory, probe, ablations by head"),
        "import": ("import_model", "a Llama of Hugging Face as an Infini checkpoint to continue training from"),
        "calibrate": ("calibrate", "make a checkpoint's memory bear longer contexts, without training"),
        "serve": ("serve", "a checkpoint as an OpenAI-compatible server: completions, chats, log-probabilities"),
        "plan": ("plan", "memory and time of a model at a context length, before anything is loaded"),
    },
    "machine": {
        "doctor": ("doctor", "what works here, what is missing, and the command that mends it"),
        "launch": ("launch", "a command on several processes: `infini-eval launch -n 4 passkey …`"),
        "completion": ("completion", "a script that lets your shell complete commands and flags"),
    },
}
ALIASES: dict[str, Entry] = {
    "passkey": ("passkey", "= run --task passkey --backend nanotron --model CKPT (run_passkey_eval.py)"),
    "long-context": (
        "model_comparison:LONG_CONTEXT",
        "= model-comparison with one model, a context in characters (long_context_test.py)",
    ),
    "aa-lcr-generate": ("aa_lcr:GENERATE", "= run --task aa_lcr, answers in one JSON file (generate.py)"),
    "aa-lcr-evaluate": ("aa_lcr:EVALUATE", "= judge for such a file (evaluate.py)"),
}
TOOLS: dict[str, Entry] = {
    "verify": ("verify", "compare a checkpoint's logits and tokens with the training framework's own"),
    "load": ("load", "load a model and tokenise a data set without generating: memory and time"),
}
COMMANDS = {name: command for group in (*GROUPS.values(), ALIASES, TOOLS) for name, command in group.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """The `infini-eval` command; returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv and argv[0] == "help":  # `infini-eval help run` is `infini-eval run --help`
        argv = [*argv[1:2], "--help"]
    if argv and argv[0] in COMMANDS:
        return run_command(argv[0], argv[1:], prog=f"infini-eval {argv[0]}")
    return guarded(_without_command, argparse.Namespace(argv=argv))


def _without_command(args: argparse.Namespace) -> int:
    """What there is to say where no command is named, or none of ours."""
    name = next(iter(args.argv), "--help")
    if name in ("-h", "--help"):
        print(_usage())
    elif name in ("-V", "--version"):
        print(f"infini-eval {__version__}")
    else:
        near = did_you_mean(name, COMMANDS) or f"\n  valid: {', '.join(COMMANDS)}"
        tell_user(f"error: unknown command {shown(name)}{near}")
        return EXIT_USAGE
    return EXIT_OK


def run_command(command: str, argv: Sequence[str] | None = None, *, prog: str | None = None, **defaults: Any) -> int:
    """Parse `argv` for a command and run it; the scripts under examples/ call this too.

    defaults: of flags, by the names of their values, where they differ from the command's own.
    """

    def parse_and_run(args: argparse.Namespace) -> int:
        parser = command_parser(command, prog=prog)
        parser.set_defaults(**defaults)
        return load_command(command).run(parser.parse_args(args.argv))

    return guarded(parse_and_run, argparse.Namespace(argv=argv))


def command_parser(command: str, *, prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of a command with all its flags.

    Raises:
        ConfigError: an environment variable that stands for a flag has a value that the flag cannot have.
    """
    found = load_command(command)
    parser = make_parser(prog=prog, description=found.description)
    found.add_arguments(parser)
    return parser


def load_command(name: str) -> Command:
    """Import the command of that name."""
    path, _, member = COMMANDS[name][0].partition(":")
    module = importlib.import_module(f"infini_eval.cli.{path}")
    if member:
        found: Command = getattr(module, member)
        return found
    return Command(module.__doc__ or "", module.add_arguments, module.run)


def guarded(run: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """Run a command: a user's mistake becomes one message and status 2, and a mistake of ours one message and status 1."""
    with safe_output():
        try:
            status = run(args)
            sys.stdout.flush()
            return status
        except OutputLost as error:
            return error.end()
        except BrokenPipeError:  # `2>&1 | head` closed our messages' way
            return EXIT_OK
        except KeyboardInterrupt:
            tell_user("interrupted; what was finished is on disk, the same command continues")
            return EXIT_INTERRUPTED
        except Exception as error:
            mistake = users_mistake(error)
            if mistake is None:
                return tell_of_our_mistake(error)
            tell_user(f"error: {mistake}")
            return EXIT_USAGE


def _usage() -> str:
    lines = ["usage: infini-eval COMMAND [options]", ""]
    for title, commands in (*GROUPS.items(), ("other spellings", ALIASES), ("for checking", TOOLS)):
        lines += [f"{title}:", *(f"  {name:<16}  {text}" for name, (_, text) in commands.items()), ""]
    lines.append(
        "infini-eval help COMMAND shows a command's options and an example; infini-eval --version the version."
    )
    return "\n".join(lines)
