"""Compare models on a needle in a haystack: Llama 4 Scout here against Gemini, or any others.

  python model_comparison.py --char-count 100000 --llama-only --test-mode
  python model_comparison.py --char-count 10000,100000 --models transformers:DIR,openai:NAME --base-url http://127.0.0.1:8000/v1
  python model_comparison.py --progressive --llama-only        10K, 100K, 1M, 8M characters, as far as the plan allows

One JSON a size in comparison_results/; a sweep of several sizes also makes sweep.png there. Keys: GEMINI_API_KEY, OPENAI_API_KEY.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from infini_eval.cli.flags import add_flag, read_options
from infini_eval.cli.niah_flags import add_niah_flags, sizes
from infini_eval.config import PromptSettings
from infini_eval.errors import EXIT_CHECK_FAILED, EXIT_OK, ConfigError

SCOUT = "meta-llama/Llama-4-Scout-17B-16E-Instruct"
GEMINI = "gemini-2.5-pro"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_flag(
        parser,
        "--char-count",
        type=sizes,
        default=(100_000,),
        metavar="N",
        help="characters of the context; several, separated by commas, make a sweep (default: 100000)",
    )
    add_flag(
        parser,
        "--progressive",
        action="store_true",
        help="10K, 100K, 1M and 8M characters; stops where the plan says that it cannot fit",
    )
    add_flag(parser, "--llama-only", action="store_true", help="only the local model")
    add_flag(parser, "--gemini-only", action="store_true", help="only Gemini")
    add_flag(
        parser,
        "--models",
        metavar="LIST",
        help="other contenders: BACKEND:MODEL, separated by commas (fake:any needs nothing)",
    )
    add_flag(
        parser,
        "--llama-model",
        default=os.environ.get("MODEL_ID", SCOUT),
        metavar="MODEL",
        help="folder or hub id (default: %(default)s, or MODEL_ID)",
    )
    add_flag(
        parser,
        "--gemini-model",
        default=GEMINI,
        metavar="NAME",
        help="default: %(default)s; the version that answered is recorded",
    )
    add_flag(
        parser,
        "--gemini-api-key",
        metavar="KEY",
        help="better: GEMINI_API_KEY, since other users of the machine see command lines",
    )
    add_flag(parser, "--base-url", metavar="URL", help="server of the openai contenders")
    add_niah_flags(parser)


def run(args: argparse.Namespace) -> int:
    from infini_eval.cli.niah_comparison import PROGRESSION, Contender

    if args.llama_only and args.gemini_only:
        raise ConfigError("--llama-only and --gemini-only exclude each other", valid="one of them, or neither for both")
    contenders = [local_contender(args, args.llama_model)]
    if not args.llama_only:
        contenders.append(Contender("gemini", args.gemini_model, environment=_gemini_key(args)))
    if args.gemini_only:
        contenders = contenders[1:]
    if args.models:
        contenders = [named_contender(args, name.strip()) for name in args.models.split(",")]
    return compare_and_report(args, contenders, PROGRESSION if args.progressive else args.char_count)


def compare_and_report(args: argparse.Namespace, contenders: list[Any], char_counts: tuple[int, ...]) -> int:
    """Run it; exit status 1 where a model failed (a needle that was not found is a result, not a failure)."""
    from infini_eval.cli.niah_comparison import Comparison, compare
    from infini_eval.cli.niah_data import NiahData

    args.results_dir.mkdir(parents=True, exist_ok=True)
    data = NiahData(
        _tokenizer(args, contenders), args.needle, args.question, args.expected, args.depth, args.haystack, args.seed
    )
    reports = compare(
        Comparison(
            contenders, char_counts, data, args.results_dir, args.test_mode, not args.no_plan, args.max_new_tokens
        )
    )
    print(f"results: {args.results_dir}/")
    entries = [entry for report in reports for entry in report["models"]]
    if len(reports) > 1 and not args.test_mode:
        from infini_eval.reports.plots import write_sweep_plot

        print(f"plot: {write_sweep_plot(entries, args.results_dir / 'sweep.png')}")
    return EXIT_CHECK_FAILED if any(entry["status"] == "failed" for entry in entries) else EXIT_OK


def local_contender(args: argparse.Namespace, model: str, backend: str = "transformers") -> Any:
    """The model that is computed here, with the flags that the document's constants mean."""
    from infini_eval.cli.niah_comparison import Contender

    flags = [*_pair("--dtype", args.dtype), *_pair("--device", args.device), *_pair("--tp", args.tp)]
    if backend == "transformers":
        if args.use_4bit_quantization == "yes":
            flags += ["--quantization", "4bit"]
        flags += _pair("--max-memory", args.max_gpu_memory)
        if args.enable_cpu_offload == "yes":
            flags += ["--offload-folder", "offload_folder"]
        if not args.tp and args.device != "cpu":
            flags += ["--device-map", "auto"]
    flags += _chat(args, backend)
    return Contender(backend, model, tuple(flags), processes=args.tp or 1)


def named_contender(args: argparse.Namespace, name: str) -> Any:
    """A contender from BACKEND:MODEL."""
    from infini_eval.api import registry
    from infini_eval.cli.niah_comparison import Contender

    backend, _, model = name.partition(":")
    valid = registry.names("backends")
    if backend not in valid or not model:
        raise ConfigError(f"--models {name!r}", valid=f"BACKEND:MODEL with one of {', '.join(valid)}")
    if backend in ("transformers", "nanotron"):
        return local_contender(args, model, backend)
    if backend == "gemini":
        return Contender(backend, model, environment=_gemini_key(args))
    served = _pair("--base-url", getattr(args, "base_url", None)) if backend == "openai" else []
    return Contender(backend, model, (*served, *_chat(args, backend)))


def _chat(args: argparse.Namespace, backend: str) -> list[str]:
    template = read_options(args, PromptSettings).chat_template
    asked = backend in ("transformers", "openai", "vllm") and template != "auto"
    return ["--chat-template", template] if asked else []


def _gemini_key(args: argparse.Namespace) -> dict[str, str]:
    key = getattr(args, "gemini_api_key", None)
    if not key:
        return {}
    print(
        "warning: --gemini-api-key stands in the process list and the shell's history; use GEMINI_API_KEY",
        file=sys.stderr,
    )
    return {"GEMINI_API_KEY": key}


def _tokenizer(args: argparse.Namespace, contenders: list[Any]) -> str:
    """The one that was named; else a local contender's own; else the shipped one."""
    if args.tokenizer:
        return str(args.tokenizer)
    local = next((each for each in contenders if each.backend in ("transformers", "nanotron")), None)
    if local is not None:
        return str(local.model)
    in_checkout = Path(__file__).resolve().parents[3] / "checkpoints" / "infini-demo" / "tokenizer"
    shipped = Path(os.environ.get("FALLBACK_TOKENIZER", in_checkout))
    if shipped.is_dir():
        return str(shipped)
    raise ConfigError("no local model whose tokenizer could count the context", next_step="pass --tokenizer FOLDER")


def _pair(flag: str, value: Any) -> list[str]:
    return [] if value is None else [flag, str(value)]
