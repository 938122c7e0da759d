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

from infini_eval.cli.flags import Command, add_flag, add_options, read_options
from infini_eval.config import LoadSettings, ModelSettings, PromptSettings, RequestSettings
from infini_eval.errors import EXIT_CHECK_FAILED, EXIT_OK, ConfigError
from infini_eval.options import positive_int

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
    _add_niah_flags(parser)


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
    from infini_eval.cli.niah_comparison import NeedleComparison, compare
    from infini_eval.cli.niah_data import NiahData
    from infini_eval.reports import needle_tests

    args.results_dir.mkdir(parents=True, exist_ok=True)
    data = NiahData(
        _tokenizer(args, contenders), args.needle, args.question, args.expected, args.depth, args.haystack, args.seed
    )
    reports = compare(
        NeedleComparison(
            contenders, char_counts, data, args.results_dir, args.test_mode, not args.no_plan, args.max_new_tokens
        )
    )
    tests = needle_tests.needle_tests(args.results_dir)
    print(f"\n{needle_tests.render(tests)}\n")
    print(f"table: {needle_tests.write(tests, args.results_dir)}\nresults: {args.results_dir}/")
    entries = [entry for report in reports for entry in report["models"]]
    if len(reports) > 1 and not args.test_mode:
        from infini_eval.reports.plots import write_sweep_plot

        print(f"plot: {write_sweep_plot(entries, args.results_dir / 'sweep.png')}")
    return EXIT_CHECK_FAILED if any(entry["status"] == "failed" for entry in entries) else EXIT_OK


def local_contender(args: argparse.Namespace, model: str, backend: str = "transformers") -> Any:
    """The model that is computed here, with the settings that the document's constants mean."""
    from infini_eval.cli.niah_comparison import Contender

    weights = ModelSettings(dtype=args.dtype, device=args.device)
    if backend != "transformers":
        return Contender(backend, model, weights, tp=args.tp)
    loading = LoadSettings(
        quantization="4bit" if args.use_4bit_quantization == "yes" else None,
        max_memory=args.max_gpu_memory,
        offload_folder="offload_folder" if args.enable_cpu_offload == "yes" else None,
        device_map="auto" if not args.tp and args.device != "cpu" else None,
    )
    return Contender(backend, model, weights, (read_options(args, PromptSettings), loading), tp=args.tp)


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
    settings: list[Any] = [read_options(args, PromptSettings)] if backend in ("openai", "vllm") else []
    if backend == "openai":
        settings.append(RequestSettings(base_url=getattr(args, "base_url", None)))
    return Contender(backend, model, settings=tuple(settings))


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


def _add_long_context_arguments(parser: argparse.ArgumentParser) -> None:
    size = sizes(os.environ.get("TARGET_CHAR_COUNT", "10_000"))
    add_flag(
        parser,
        "--target-char-count",
        type=sizes,
        default=size,
        metavar="N",
        help="characters, about 4 a token; several, separated by commas, make a sweep (default: 10000, or TARGET_CHAR_COUNT)",
    )
    add_flag(
        parser,
        "--model-id",
        default=os.environ.get("MODEL_ID", SCOUT),
        metavar="MODEL",
        help="folder or hub id (default: %(default)s, or MODEL_ID)",
    )
    add_flag(parser, "--backend", default="transformers", metavar="NAME", help="who answers (default: %(default)s)")
    _add_niah_flags(parser)


def _long_context(args: argparse.Namespace) -> int:
    contender = named_contender(args, f"{args.backend}:{args.model_id}")
    return compare_and_report(args, [contender], args.target_char_count)


LONG_CONTEXT = Command(
    """One model, one needle, a very long context: `model-comparison` with the constants of long_context_test.py.

python long_context_test.py --target-char-count 10_000 --model-id DIR_OR_HUB_ID
TARGET_CHAR_COUNT=40_000_000 MODEL_ID=... python long_context_test.py --test-mode
""",
    _add_long_context_arguments,
    _long_context,
)


def _add_niah_flags(parser: argparse.ArgumentParser) -> None:
    """Flags that long_context_test.py and model_comparison.py share: the document's constants, as flags and environment."""
    add_flag(
        parser, "--test-mode", action="store_true", help="load and tokenise without generating; report memory and time"
    )
    _add_prompt(parser)
    _add_local_model(parser)
    add_flag(
        parser,
        "--results-dir",
        type=Path,
        default=Path("comparison_results"),
        metavar="DIR",
        help="default: %(default)s",
    )


def _add_prompt(parser: argparse.ArgumentParser) -> None:
    env = os.environ
    add_flag(
        parser,
        "--needle",
        default=env.get("NEEDLE"),
        metavar="TEXT",
        help="the sentence to hide (default: the task's, or NEEDLE)",
    )
    add_flag(parser, "--question", default=env.get("QUESTION"), metavar="TEXT", help="default: the task's, or QUESTION")
    add_flag(
        parser,
        "--expected",
        default=env.get("EXPECTED"),
        metavar="TEXT",
        help="what the reply must contain (default: the needle, or the task's key)",
    )
    add_flag(
        parser,
        "--depth",
        type=float,
        default=50.0,
        metavar="PERCENT",
        help="where the needle stands (default: %(default)s)",
    )
    add_flag(
        parser,
        "--haystack",
        metavar="SOURCE",
        help="english, filler, python-docs, or a folder of text (default: the task's)",
    )
    add_flag(
        parser,
        "--tokenizer",
        metavar="DIR",
        help="counts the context's tokens (default: the local model's, else the shipped one)",
    )
    add_options(parser, PromptSettings)
    add_flag(parser, "--seed", type=int, default=42, help="default: %(default)s")
    add_flag(parser, "--max-new-tokens", type=positive_int, default=128, metavar="N", help="default: %(default)s")


def _add_local_model(parser: argparse.ArgumentParser) -> None:
    env = os.environ
    add_flag(
        parser,
        "--use-4bit-quantization",
        choices=("yes", "no"),
        default=_yes_no("USE_4BIT_QUANTIZATION", "no"),
        help="bitsandbytes while loading; it leaves Llama 4's experts as they are (default: %(default)s)",
    )
    add_flag(
        parser,
        "--enable-cpu-offload",
        choices=("yes", "no"),
        default=_yes_no("ENABLE_CPU_OFFLOAD", "no"),
        help="layers that do not fit go to host memory and offload_folder/ (default: %(default)s)",
    )
    add_flag(
        parser,
        "--max-gpu-memory",
        default=env.get("MAX_GPU_MEMORY"),
        metavar="SIZE",
        help="at most so much on each GPU: 75GiB (or MAX_GPU_MEMORY)",
    )
    add_flag(parser, "--dtype", choices=("float32", "bfloat16", "float16"), help="default: the model's")
    add_flag(parser, "--device", help="cpu or cuda (default: cuda when present)")
    add_flag(
        parser,
        "--tp",
        type=positive_int,
        metavar="N",
        help="shards of the local model, each in a process of its own (default: one process over all GPUs)",
    )
    add_flag(parser, "--no-plan", action="store_true", help="try also what the memory plan says cannot fit")


def _yes_no(name: str, default: str) -> str:
    """An environment variable as yes or no: True, 1, yes."""
    value = os.environ.get(name)
    return default if value is None else "yes" if value.strip().lower() in ("1", "true", "yes", "on") else "no"


def sizes(text: str) -> tuple[int, ...]:
    """ "100000" or "10_000,1000000" as characters."""
    try:
        found = tuple(int(part.replace("_", "")) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of characters (valid: 100000, or 10_000,100_000)")
    return found
