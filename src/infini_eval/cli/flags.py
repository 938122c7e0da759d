"""Every command-line flag, defined once; commands pick the groups they take.

Flags keep the spellings that users' documents have (`--ckpt-path`, `--context_length`), and each accepts both `-` and
`_`. Abbreviations are refused, so that a new flag never changes what an old command means.
"""

from __future__ import annotations

import argparse
from typing import Any

from infini_eval.cli.values import count, depth_list, gigabytes, positive_int, token_count
from infini_eval.config import DTYPES, ModelSettings, Sampling, Topology
from infini_eval.errors import ConfigError


def make_parser(prog: str | None = None, description: str | None = None) -> argparse.ArgumentParser:
    """A parser without abbreviations that shows defaults and keeps a docstring's line breaks."""
    return argparse.ArgumentParser(
        prog=prog, description=description, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_flag(parser: argparse._ActionsContainer, name: str, **options: Any) -> None:
    """Add `--a_b-c` under its documented spelling, its all-dash and its all-underscore spelling; only the first is shown."""
    stem = name.removeprefix("--")
    spellings = [name, "--" + stem.replace("_", "-"), "--" + stem.replace("-", "_")]
    options.setdefault("dest", stem.replace("-", "_"))
    action = parser.add_argument(*dict.fromkeys(spellings), **options)
    action.option_strings = [name]  # help and error messages show one spelling; parsing knows them all


def add_checkpoint_flag(parser: argparse._ActionsContainer) -> None:
    add_flag(
        parser,
        "--ckpt-path",
        required=True,
        metavar="DIR",
        help="nanotron checkpoint: a step folder, or its parent with latest.txt",
    )


def add_topology_flags(parser: argparse._ActionsContainer) -> None:
    for axis, text in (("dp", "data"), ("tp", "tensor"), ("pp", "pipeline")):
        add_flag(
            parser,
            f"--{axis}",
            type=positive_int,
            metavar="N",
            help=f"{text}-parallel size (default: chosen from the checkpoint and the world size)",
        )
    add_flag(
        parser,
        "--timeout",
        type=positive_int,
        default=1800,
        metavar="SECONDS",
        help="time limit of one collective (default: %(default)s)",
    )


def add_model_flags(parser: argparse._ActionsContainer) -> None:
    add_weights_flags(parser, ("sdpa", "flash_attn"))
    add_native_flags(parser)


def add_weights_flags(parser: argparse._ActionsContainer, attention: tuple[str, ...]) -> None:
    """Flags of every backend that computes here; `attention` lists its kernels."""
    add_flag(parser, "--dtype", choices=DTYPES, help="dtype of weights and activations (default: the checkpoint's)")
    add_flag(parser, "--device", metavar="DEVICE", help="cpu or cuda (default: cuda when present)")
    text = "attention kernels (default: %(default)s)"
    add_flag(parser, "--attn-implementation", choices=attention, default="sdpa", help=text)


def add_native_flags(parser: argparse._ActionsContainer) -> None:
    """Flags of this package's own engine."""
    add_flag(
        parser,
        "--memory",
        choices=("on", "off", "ablate"),
        help="compressive memory: off drops the gate too (turn_on_memory: false), ablate keeps it and reads zero "
        "(default: as the checkpoint says)",
    )
    add_flag(
        parser,
        "--memory-query",
        choices=("rotary", "plain"),
        help="the query that reads the memory (default: as the checkpoint says, else rotary)",
    )
    add_flag(
        parser,
        "--memory-dtype",
        choices=("float32", "model"),
        default="float32",
        help="dtype of the memory state (default: %(default)s)",
    )
    add_flag(
        parser,
        "--rope-interleaved",
        choices=("yes", "no"),
        help="override how rotary pairs are laid out (default: as the checkpoint says)",
    )
    add_flag(
        parser,
        "--chunk-segments",
        type=positive_int,
        metavar="K",
        help="whole segments computed in one step (default: chosen)",
    )
    add_flag(
        parser,
        "--prefix-cache-gb",
        type=gigabytes,
        default=ModelSettings.prefix_cache_gb,
        metavar="GB",
        help="samples of one haystack are read once up to where they part; GB bounds, on each rank, the states that later "
        "batches start from; 0 reads every prompt whole (default: %(default)g; models without segments always do)",
    )
    add_flag(
        parser,
        "--compile",
        action="store_true",
        help="torch.compile for chunks of whole segments and new tokens (nanotron): minutes of compiling, then a gain on "
        "small models",
    )
    add_flag(
        parser,
        "--cuda-graphs",
        action="store_true",
        help="new tokens replay one recorded CUDA graph for each batch size (nanotron, --tp 1 --pp 1)",
    )


def add_failed_flag(parser: argparse._ActionsContainer) -> None:
    text = "count failed samples as wrong (default: neither right nor wrong; verdicts hold for either)"
    add_flag(parser, "--failed-as-wrong", action="store_true", help=text)


def add_sampling_flags(parser: argparse._ActionsContainer) -> None:
    add_flag(parser, "--temperature", type=float, default=0.0, help="0 is greedy (default: %(default)s)")
    add_flag(
        parser,
        "--top-k",
        type=count,
        default=0,
        help="draw from the k likeliest tokens; 0 keeps all (default: %(default)s)",
    )
    add_flag(
        parser,
        "--top-p",
        type=float,
        default=1.0,
        help="draw from the smallest set with this probability (default: %(default)s)",
    )


def add_data_flags(parser: argparse._ActionsContainer) -> None:
    add_flag(
        parser,
        "--eval_dataset_path",
        required=True,
        metavar="DATA",
        help="parquet file, folder, save_to_disk folder or hub id",
    )
    add_flag(
        parser, "--num_shots", type=count, metavar="N", help="only rows with N worked examples (default: all rows)"
    )
    add_flag(
        parser,
        "--num_digits",
        type=count,
        default=0,
        metavar="N",
        help="only rows with N-digit keys; 0 takes all (default: %(default)s)",
    )
    add_flag(
        parser, "--context_length", type=token_count, metavar="N", help="only rows labelled N tokens (128k = 131,072)"
    )
    add_flag(parser, "--depths", type=depth_list, metavar="LIST", help="only these depths: 0,50,100 or 0:100:5")
    add_flag(
        parser,
        "--num_samples",
        type=positive_int,
        metavar="N",
        help="samples of each depth and length, drawn with --seed (default: all)",
    )
    add_flag(
        parser, "--seed", type=int, default=42, help="draws the samples, and seeds sampling (default: %(default)s)"
    )
    add_flag(parser, "--strict-data", action="store_true", help="defects of the data set are errors, not warnings")


def add_run_flags(parser: argparse._ActionsContainer) -> None:
    add_flag(parser, "--save_path", required=True, metavar="DIR", help="the run folder; the same command continues it")
    add_flag(
        parser,
        "--max-new-tokens",
        type=positive_int,
        default=15,
        metavar="N",
        help="tokens of an answer at most (default: %(default)s)",
    )
    add_flag(
        parser,
        "--no-early-stop",
        action="store_true",
        help="go on to --max-new-tokens where no further token can change a score (nanotron and transformers stop there)",
    )
    add_flag(
        parser,
        "--batch_size",
        type=positive_int,
        metavar="N",
        help="samples computed together (default: by their length, no more than fit into memory)",
    )
    add_flag(
        parser,
        "--scorer",
        default="exact_digits",
        metavar="NAME",
        help="what counts as correct: exact_digits (the first number is the answer), chat_digits (as chat models write "
        "numbers) or contains; all are recorded (default: %(default)s)",
    )
    add_flag(
        parser,
        "--tokenizer",
        metavar="DIR",
        help="folder or hub id (default: the configuration's, or beside the checkpoint)",
    )
    add_flag(parser, "--results_file", metavar="FILE", help="also write the JSON summary that older scripts read")
    add_flag(parser, "--overwrite", action="store_true", help="discard a run that is already in the folder")
    add_failed_flag(parser)
    add_flag(
        parser, "--log-prompts", action="store_true", help="log whole prompts instead of the text around the needle"
    )
    add_flag(parser, "--quiet", action="store_true", help="no log lines for single samples")
    add_flag(
        parser,
        "--no-plan",
        action="store_true",
        help="load the model even where the memory plan says that it cannot fit",
    )


def model_settings(args: argparse.Namespace) -> ModelSettings:
    """The model flags as ModelSettings."""
    interleaved = None if args.rope_interleaved is None else args.rope_interleaved == "yes"
    return ModelSettings(
        dtype=args.dtype,
        device=args.device,
        memory=args.memory,
        memory_query=args.memory_query,
        memory_dtype=args.memory_dtype,
        rope_interleaved=interleaved,
        attn_implementation=args.attn_implementation,
        chunk_segments=args.chunk_segments,
        prefix_cache_gb=args.prefix_cache_gb,
        compile=args.compile,
        cuda_graphs=args.cuda_graphs,
    )


def topology(args: argparse.Namespace) -> Topology:
    """The topology flags as Topology."""
    return Topology(dp=args.dp, tp=args.tp, pp=args.pp)


def sampling(args: argparse.Namespace) -> Sampling:
    """The sampling flags as Sampling; ConfigError for values outside their ranges."""
    if args.temperature < 0 or not 0 < args.top_p <= 1:
        raise ConfigError(
            f"--temperature {args.temperature:g} --top-p {args.top_p:g}",
            valid="temperature of at least 0, top-p in (0, 1]",
        )
    return Sampling(args.temperature, args.top_k, args.top_p, args.seed)
