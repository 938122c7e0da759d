"""Serve a nanotron checkpoint by OpenAI's protocol: completions, chats, streams, log-probabilities; requests are batched.

  infini-eval serve checkpoints/infini-demo --port 8000
  infini-eval launch -n 2 serve checkpoints/infini-demo --tp 2 --host 0.0.0.0 --api-key-env SERVE_KEY

Listens on this machine only, unless --host says otherwise. Ctrl-C or SIGTERM ends it: requests in hand finish first.
"""

from __future__ import annotations

import argparse

from infini_eval.cli import flags
from infini_eval.config import Topology
from infini_eval.errors import EXIT_OK
from infini_eval.packages import require
from infini_eval.serve.settings import ServeSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "ckpt_path", metavar="CKPT", help="nanotron checkpoint: a step folder, or its parent with latest.txt"
    )
    flags.add_options(parser.add_argument_group("server"), ServeSettings)
    model = parser.add_argument_group("model")
    flags.add_flag(model, "--tokenizer", metavar="T", help="tokenizer folder (default: the checkpoint's)")
    flags.add_model_flags(model)
    flags.add_topology_flags(parser.add_argument_group("processes"))


def run(args: argparse.Namespace) -> int:
    """Serve until a signal comes."""
    settings = flags.read_options(args, ServeSettings)
    for package in ("fastapi", "uvicorn"):
        require(package, extra="serve", purpose="infini-eval serve")
    from infini_eval.serve.server import serve

    serve(
        args.ckpt_path,
        settings,
        flags.model_settings(args),
        flags.read_options(args, Topology),
        tokenizer=args.tokenizer,
        timeout_s=args.timeout,
        on_ready=lambda address: print(f"serving {args.ckpt_path} at {address}  (Ctrl-C ends)", flush=True),
    )
    return EXIT_OK
