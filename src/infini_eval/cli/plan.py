"""Memory and time of a model at a context length, before anything is loaded: what fits, and on how many GPUs.

  infini-eval plan --model llama-4-scout --context 128k,1m,10m --gpus 4xH100-80GB --kv-dtype fp8
  infini-eval plan --model checkpoints/infini-demo --context 1m --gpus cpu-16GB --json

Token suffixes: k = 1,024, m = 1,048,576. Exit status 0 also when it does not fit: that is an answer.
"""

from __future__ import annotations

import argparse
import json

from infini_eval.cli import flags
from infini_eval.config import Topology
from infini_eval.errors import EXIT_OK
from infini_eval.options import positive_int, process_count, token_count

DTYPES = ("float32", "bfloat16", "float16", "fp8", "int8")
QUANTIZATIONS = ("none", "fp8", "int8", "int4", "nf4", "bnb-4bit", "bnb-8bit")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _add_machine(parser)
    _add_settings(parser)
    _add_work(parser)


def _add_machine(parser: argparse.ArgumentParser) -> None:
    add = flags.add_flag
    add(
        parser,
        "--model",
        required=True,
        metavar="MODEL",
        help="preset (llama-4-scout, llama-3.1-8b, -70b, -405b, infini-300m), config.json, config.yaml, or a folder",
    )
    add(
        parser,
        "--context",
        type=context_list,
        required=True,
        metavar="LIST",
        help="tokens of prompt and answer: 128k or 128k,1m,10m",
    )
    add(
        parser,
        "--gpus",
        default="1xH100-80GB",
        metavar="NxNAME",
        help="4xH100-80GB, 1xA100-40GB, gpu-24GB, cpu-64GB, … (default: %(default)s)",
    )
    for axis in ("dp", "tp", "pp"):
        add(
            parser,
            f"--{axis}",
            type=process_count,
            metavar="N",
            help=f"size of the mesh axis {axis} (default: chosen)",
        )


def _add_settings(parser: argparse.ArgumentParser) -> None:
    add = flags.add_flag
    add(parser, "--dtype", choices=DTYPES[:3], help="dtype of weights and activations (default: the model's)")
    add(parser, "--kv-dtype", choices=DTYPES, help="dtype of the KV cache (default: --dtype)")
    add(
        parser,
        "--memory-dtype",
        choices=DTYPES[:3],
        default="float32",
        help="dtype of the compressive memory (default: %(default)s)",
    )
    add(
        parser,
        "--quantization",
        choices=QUANTIZATIONS,
        default="none",
        help="of the weights; bnb-* is bitsandbytes while loading, nf4 a checkpoint stored so (default: %(default)s)",
    )
    add(
        parser,
        "--attention",
        choices=("sdpa", "flash", "eager"),
        default="sdpa",
        help="attention kernels; flash also stands for a paged cache, as vLLM has (default: %(default)s)",
    )
    add(
        parser,
        "--batch",
        type=positive_int,
        default=1,
        metavar="N",
        help="sequences at a time on each replica (default: %(default)s)",
    )
    add(
        parser,
        "--prefill-chunk",
        type=token_count,
        metavar="N",
        help="tokens of a prefill step (default: as the engine chooses)",
    )


def _add_work(parser: argparse.ArgumentParser) -> None:
    add = flags.add_flag
    add(
        parser,
        "--samples",
        type=positive_int,
        default=1,
        metavar="N",
        help="samples that the GPU-hours are for (default: %(default)s)",
    )
    add(
        parser,
        "--max-new-tokens",
        type=positive_int,
        default=15,
        metavar="N",
        help="tokens of an answer (default: %(default)s)",
    )
    add(
        parser,
        "--utilisation",
        type=share,
        default=0.4,
        metavar="X",
        help="share of the peak FLOPs that a prefill reaches (default: %(default)s)",
    )
    add(parser, "--json", action="store_true", help="print JSON instead of text")


def run(args: argparse.Namespace) -> int:
    from infini_eval.planning.devices import parse_gpus
    from infini_eval.planning.hf_config import read_architecture
    from infini_eval.planning.memory import Settings
    from infini_eval.planning.plan import Workload, make_plan
    from infini_eval.planning.text import plan_json, plan_text

    count, device = parse_gpus(args.gpus)
    settings = Settings(
        dtype=args.dtype,
        kv_dtype=args.kv_dtype,
        memory_dtype=args.memory_dtype,
        quantization=args.quantization,
        kernel=args.attention,
        batch=args.batch,
        prefill_chunk=args.prefill_chunk,
    )
    plan = make_plan(
        read_architecture(args.model),
        args.context,
        device,
        count,
        asked=Topology(args.dp, args.tp, args.pp),
        settings=settings,
        work=Workload(args.samples, args.max_new_tokens, args.utilisation),
    )
    print(json.dumps(plan_json(plan), indent=2) if args.json else plan_text(plan))
    return EXIT_OK


def context_list(text: str) -> list[int]:
    """ "128k,1m" as numbers of tokens."""
    return [token_count(part) for part in text.split(",")]


def share(text: str) -> float:
    """A number above 0 and at most 1."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share (valid: above 0, at most 1)")
    return value
