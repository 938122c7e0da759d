"""Make a nanotron Infini checkpoint, to continue training from, of a Llama in Hugging Face's format.

  infini-eval import llama-folder --segment-length 2048 --output checkpoints/new

The checkpoint is the folder 0 of --output, with latest.txt and the tokenizer beside it. With gates that are shut
(--gate-init closed) it computes what the source computes as long as a prompt fits into one segment. Only models that both
sides compute exactly alike are taken: Llama 2 and 3.0, SmolLM, TinyLlama; others are refused with the reason.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from infini_eval.cli.flags import add_flag
from infini_eval.config import DTYPES, GATE_ACTIVATIONS
from infini_eval.errors import EXIT_OK
from infini_eval.options import path_name, process_count, token_count


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", metavar="DIR", type=Path, help="folder with config.json, *.safetensors, tokenizer.json"
    )
    add_flag(parser, "--segment-length", type=token_count, required=True, metavar="L", help="tokens of a segment")
    add_flag(parser, "--output", type=path_name, required=True, metavar="DIR", help="folder that is new or empty")
    add_flag(
        parser,
        "--gate-init",
        default="closed",
        metavar="NAME",
        help="closed: the memory has no weight yet; zeros: nanotron's own, which moves the logits by several units; open; or "
        "a balance factor as a number (default: %(default)s)",
    )
    add_flag(
        parser,
        "--gate-activation",
        choices=GATE_ACTIVATIONS,
        default="hard_sigmoid",
        help="from balance factor to gate (default: %(default)s)",
    )
    add_flag(parser, "--dtype", choices=DTYPES, help="dtype of the weights (default: the source's)")
    add_flag(parser, "--tp", type=process_count, default=1, metavar="N", help="tensor-parallel files (default: 1)")
    add_flag(
        parser, "--pp", type=process_count, default=1, metavar="N", help="pipeline stages of the files (default: 1)"
    )


def run(args: argparse.Namespace) -> int:
    """Write the checkpoint and say what its gates mean for the first steps of training."""
    from infini_eval.library import import_model

    made = import_model(
        args.source,
        args.output,
        segment_length=args.segment_length,
        gate_init=args.gate_init,
        gate_activation=args.gate_activation,
        dtype=args.dtype,
        tp=args.tp,
        pp=args.pp,
    )
    factor = f"balance factors {made.balance_factor:g}, {args.gate_activation}: g = {made.gate:.3g}"
    print(f"{made.folder}: {made.parameters:,} parameters, segments of {args.segment_length} tokens, {factor}")
    for note in made.notes:
        print(f"note: {note}")
    print(f"look at it:  infini-eval inspect --ckpt-path {made.folder}")
    return EXIT_OK
