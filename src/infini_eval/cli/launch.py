"""Start a command on several processes of this machine, or of many: torchrun with an end that can be read.

  infini-eval launch -n 4 passkey --ckpt-path CKPT --eval_dataset_path DATA --save_path results/run --dp 4
  infini-eval launch -n 4 examples/infinite-context-length/run_evals.py --ckpt-path CKPT ...
  infini-eval launch -n 8 --nnodes 2 --rdzv-endpoint HOST:29500 run --task passkey ...       on each of the two nodes

The message of a failed run stands last, and Ctrl-C ends quietly; plain torchrun starts the same runs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from infini_eval.cli.flags import add_flag
from infini_eval.errors import ConfigError, did_you_mean
from infini_eval.options import count, positive_int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-n",
        "--processes",
        type=positive_int,
        metavar="N",
        help="processes on each node (default: its GPUs, 1 where there are none)",
    )
    nodes = parser.add_argument_group("several nodes")
    add_flag(
        nodes, "--nnodes", type=positive_int, default=1, metavar="N", help="number of nodes (default: %(default)s)"
    )
    add_flag(nodes, "--rdzv-endpoint", metavar="HOST:PORT", help="where the nodes meet: an address on one of them")
    add_flag(nodes, "--rdzv-id", default="infini-eval", metavar="NAME", help="the same on all nodes of a run")
    add_flag(
        parser,
        "--max-restarts",
        type=count,
        default=0,
        metavar="N",
        help="start the processes again after a failure, at most N times (default: %(default)s)",
    )
    parser.add_argument(
        "what", nargs=argparse.REMAINDER, metavar="COMMAND", help="a command of infini-eval, or a script"
    )


def run(args: argparse.Namespace) -> int:
    """Start the processes and wait; the exit status of the one that failed first."""
    argv = [*_launcher_flags(args), *_target(args.what)]
    from infini_eval.distributed.torchrun import run_torchrun

    return run_torchrun(argv)


def _launcher_flags(args: argparse.Namespace) -> list[str]:
    """What torchrun is told."""
    from infini_eval.planning.devices import find_gpus

    found = [f"--nproc_per_node={args.processes or len(find_gpus() or []) or 1}", f"--max_restarts={args.max_restarts}"]
    if args.nnodes == 1:
        return [*found, "--standalone"]
    if not args.rdzv_endpoint:
        raise ConfigError("--nnodes needs a place where the nodes meet", next_step="pass --rdzv-endpoint HOST:PORT")
    meeting = ["--rdzv_backend=c10d", f"--rdzv_endpoint={args.rdzv_endpoint}", f"--rdzv_id={args.rdzv_id}"]
    return [*found, f"--nnodes={args.nnodes}", *meeting]


def _target(words: list[str]) -> list[str]:
    """A script as it is, a command of ours as a module; its flags are read here first, so that a typo starts nothing."""
    from infini_eval.cli.main import COMMANDS, command_parser

    name = words[0] if words else ""
    if name in COMMANDS and name not in ("launch", "completion"):
        command_parser(name, prog=f"infini-eval {name}").parse_args(words[1:])
        return ["-m", "infini_eval", *words]
    if name.endswith(".py") and Path(name).is_file():
        return words
    raise ConfigError(
        f"nothing to start: {name!r} is neither a command nor a script that is there{did_you_mean(name, COMMANDS)}"
        if name
        else "nothing to start",
        next_step="infini-eval launch -n 4 passkey … (flags of launch stand before the command)",
    )
