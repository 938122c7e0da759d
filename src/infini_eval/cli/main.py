"""`infini-eval COMMAND`: finds the command's file, runs it, and turns users' mistakes into one message and status 2."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence

from infini_eval import __version__
from infini_eval.cli.flags import make_parser
from infini_eval.errors import EXIT_INTERRUPTED, EXIT_USAGE, InfiniEvalError

# name -> (module below infini_eval.cli, one line for --help); a command's module is imported only when it runs.
# Each module has `add_arguments(parser)` and `run(args) -> exit status`.
COMMANDS = {
    "run": ("run_and_judge", "any task on any backend: nanotron, transformers, vllm, openai, gemini, fake"),
    "passkey": ("passkey", "evaluate a nanotron checkpoint on a passkey data set (run_passkey_eval.py)"),
    "grid": ("grid", "make needle trials at lengths and depths and evaluate a checkpoint on them (run_evals.py)"),
    "judge": ("judge", "judge the answers of an aa_lcr run with any backend, and report their accuracy"),
    "aa-lcr-generate": ("aa_lcr_generate", "answer AA-LCR's questions into one JSON file (generate.py)"),
    "aa-lcr-evaluate": ("aa_lcr_evaluate", "judge such a file and print the accuracy (evaluate.py)"),
    "analyze": ("analyze", "report on results folders (analyze_passkey_results.py)"),
    "compare": ("compare", "compare runs on the same samples, with intervals and p-values"),
    "track": ("track", "accuracy over the checkpoints of one training run"),
    "generate": ("generate", "make passkey and needle data sets of exact length and depth"),
    "data": ("data", "check a data set: `infini-eval data check FILE --tokenizer T`"),
    "inspect": ("inspect", "a checkpoint's topology, dtype and gates, and what stands out"),
    "diagnose": ("diagnose", "why retrieval works or fails: memory health, retrieval probe, ablations by head"),
    "verify": ("verify", "compare a checkpoint's logits and tokens with the training framework's own"),
    "load": ("load", "load a model and tokenise a data set without generating: memory and time"),
    "long-context": ("long_context", "one needle in a context of a given size in characters (long_context_test.py)"),
    "model-comparison": ("model_comparison", "models against each other on such a needle (model_comparison.py)"),
    "plan": ("plan", "memory and time of a model at a context length, before anything is loaded"),
    "doctor": ("doctor", "what works on this machine, what is missing, and the command that mends it"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """The `infini-eval` command; returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(_usage())
        return 0
    if argv[0] in ("-V", "--version"):
        print(f"infini-eval {__version__}")
        return 0
    if argv[0] not in COMMANDS:
        print(f"infini-eval: unknown command {argv[0]!r}\n  valid: {', '.join(COMMANDS)}", file=sys.stderr)
        return EXIT_USAGE
    return run_command(argv[0], argv[1:], prog=f"infini-eval {argv[0]}")


def run_command(command: str, argv: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Parse `argv` for a command and run it; the scripts under examples/ call this too."""
    module = importlib.import_module(f"infini_eval.cli.{COMMANDS[command][0]}")
    parser = make_parser(prog=prog, description=module.__doc__)
    module.add_arguments(parser)
    return guarded(module.run, parser.parse_args(argv))


def guarded(run: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """Run a command; a user's mistake becomes one message on stderr and exit status 2."""
    try:
        return run(args)
    except InfiniEvalError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    except BrokenPipeError:  # `| head` closed our output: not an error of the user's
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        print("interrupted; what was finished is on disk, the same command continues", file=sys.stderr)
        return EXIT_INTERRUPTED


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = ["usage: infini-eval COMMAND [options]", "", "commands:"]
    lines += [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    lines += ["", "infini-eval COMMAND --help shows a command's options; infini-eval --version the version."]
    return "\n".join(lines)
