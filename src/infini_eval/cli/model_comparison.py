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
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from infini_eval.cli.flags import Command, add_flag, add_options, read_options
from infini_eval.config import EvalConfig, LoadSettings, ModelSettings, PromptSettings, RequestSettings, Sampling
from infini_eval.errors import EXIT_CHECK_FAILED, EXIT_OK, ConfigError
from infini_eval.options import character_count, positive_int
from infini_eval.planning.devices import find_gpus

SCOUT = "meta-llama/Llama-4-Scout-17B-16E-Instruct"
GEMINI = "gemini-2.5-pro"
Read = TypeVar("Read")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _add_sizes_and_models(parser.add_argument_group("what is compared"))
    _add_niah_flags(parser)


def _add_sizes_and_models(parser: argparse._ActionsContainer) -> None:
    add_flag(
        parser,
        "--char-count",
        type=sizes,
        default=(100_000,),
        metavar="N",
        help="characters of the context, 10k = 10,000; several, separated by commas, make a sweep (default: 100000)",
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
            contenders,
            char_counts,
            data,
            args.results_dir,
            args.test_mode,
            not args.no_plan,
            args.max_new_tokens,
            draws(args),
            args.overwrite,
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
        device_map=args.device_map or _usual_map(args),
    )
    return Contender(backend, model, weights, (read_options(args, PromptSettings), loading), tp=args.tp)


def _usual_map(args: argparse.Namespace) -> str | None:
    """One process over all GPUs where there are several; a single device needs no map, and no accelerate."""
    several = args.device != "cpu" and not args.tp and len(find_gpus() or []) > 1
    return "auto" if several else None


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
    size: tuple[int, ...] = _from_environment("TARGET_CHAR_COUNT", sizes, sizes("10k"))
    group = parser.add_argument_group("what is asked of whom")
    add_flag(
        group,
        "--target-char-count",
        type=sizes,
        default=size,
        metavar="N",
        help="characters, about 4 a token, 10k = 10,000; several, separated by commas, make a sweep "
        "(default: 10000, or TARGET_CHAR_COUNT)",
    )
    add_flag(
        group,
        "--model-id",
        default=os.environ.get("MODEL_ID", SCOUT),
        metavar="MODEL",
        help="folder or hub id (default: %(default)s, or MODEL_ID)",
    )
    add_flag(group, "--backend", default="transformers", metavar="NAME", help="who answers (default: %(default)s)")
    _add_niah_flags(parser)


def _long_context(args: argparse.Namespace) -> int:
    contender = named_contender(args, f"{args.backend}:{args.model_id}")
    return compare_and_report(args, [contender], args.target_char_count)


LONG_CONTEXT = Command(
    """One model, one needle, a very long context: `model-comparison` with the constants of long_context_test.py.

  python long_context_test.py --target-char-count 10k --model-id DIR_OR_HUB_ID
  TARGET_CHAR_COUNT=40m MODEL_ID=... python long_context_test.py --test-mode

Suffixes of characters: k = 1,000, m = 1,000,000.
""",
    _add_long_context_arguments,
    _long_context,
)


def _add_niah_flags(parser: argparse.ArgumentParser) -> None:
    """Flags that long_context_test.py and model_comparison.py share: the document's constants, as flags and environment."""
    run_group = parser.add_argument_group("run")
    add_flag(
        run_group,
        "--test-mode",
        action="store_true",
        help="load and tokenise without generating; report memory and time",
    )
    where: dict[str, Any] = {"dest": "results_dir", "type": Path, "metavar": "DIR"}
    add_flag(run_group, "--results-dir", default=Path("comparison_results"), help="default: %(default)s", **where)
    add_flag(run_group, "--save-path", default=argparse.SUPPRESS, help="the same as --results-dir", **where)
    add_flag(run_group, "--overwrite", action="store_true", help="ask again where an answer lies already")
    _add_prompt(parser.add_argument_group("prompt and answer"))
    _add_local_model(parser.add_argument_group("local model"))


def _add_prompt(parser: argparse._ActionsContainer) -> None:
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
    add_flag(
        parser,
        "--temperature",
        type=float,
        metavar="T",
        help="draw tokens at this temperature; 0 is greedy (default: 0, with --do-sample 1)",
    )
    add_flag(parser, "--do-sample", action="store_true", help="draw tokens instead of taking the likeliest")


def _add_local_model(parser: argparse._ActionsContainer) -> None:
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
    add_flag(
        parser,
        "--device-map",
        metavar="MAP",
        help="auto, balanced, sequential: accelerate spreads the model (default: auto where there are several GPUs)",
    )
    add_flag(parser, "--no-plan", action="store_true", help="try also what the memory plan says cannot fit")


def _yes_no(name: str, default: str) -> str:
    """An environment variable as yes or no: True, 1, yes, on, and their opposites."""
    return _from_environment(name, _read_yes_no, default)


def _read_yes_no(text: str) -> str:
    word = text.strip().lower()
    if word in ("1", "true", "yes", "on"):
        return "yes"
    if word in ("0", "false", "no", "off", ""):
        return "no"
    raise argparse.ArgumentTypeError(f"{text!r} is neither yes nor no (valid: yes, no, True, False, 1, 0)")


def _from_environment(name: str, read: Callable[[str], Read], default: Read) -> Read:
    """What an environment variable stands for; ConfigError where it cannot be read, the default where it is not set."""
    value = os.environ.get(name)
    if value is None:
        return default
    try:
        return read(value)
    except argparse.ArgumentTypeError as error:
        raise ConfigError(
            f"the environment variable {name}: {error}", next_step=f"correct it, or unset {name}"
        ) from None


def sizes(text: str) -> tuple[int, ...]:
    """ "100000" or "10k,8m" as characters; k is 1,000 and m 1,000,000 of them."""
    return tuple(character_count(part) for part in text.split(","))


def draws(args: argparse.Namespace) -> Sampling:
    """How the answer's tokens are drawn; ConfigError for a temperature that cannot be."""
    temperature = args.temperature if args.temperature is not None else float(args.do_sample)
    if temperature < 0 or (args.do_sample and temperature == 0):
        raise ConfigError(
            f"--temperature {temperature:g}" + " with --do-sample" * args.do_sample,
            valid="above 0 to draw tokens; 0 without --do-sample for the likeliest",
        )
    return Sampling(temperature=temperature, seed=args.seed if temperature else EvalConfig.seed)
