"""The two scripts of the AA-LCR document, examples/aa-lcr/generate.py and evaluate.py: `run` and `judge` with its flags."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from infini_eval.cli import evaluation_flags as run_command
from infini_eval.cli import judge
from infini_eval.cli.flags import Command, add_flag
from infini_eval.cli.passkey import evaluate_and_report
from infini_eval.errors import EXIT_OK
from infini_eval.options import positive_int

MODEL = "meta-llama/Llama-3.1-8B-Instruct"
DATA = "ArtificialAnalysis/AA-LCR"
OUTPUT = "aa-lcr-generations.json"
WEAK = f"note: {MODEL} is a weak judge; protocol v1.0 is meant for Qwen3-235B-A22B-2507 (--backend, --model)"


def _add_generate_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("AA-LCR")
    add_flag(group, "--output-json", default=OUTPUT, metavar="FILE", help="where the answers go (default: %(default)s)")
    add_flag(
        group,
        "--num-workers",
        type=positive_int,
        default=4,
        metavar="N",
        help="threads that read documents (default: %(default)s)",
    )
    add_flag(
        group,
        "--repeats",
        type=positive_int,
        default=1,
        metavar="N",
        help="answers to each question; the official score is the mean of 3 (default: %(default)s)",
    )
    add_flag(
        group,
        "--prompt",
        choices=("official", "reasoning"),
        default="official",
        help="reasoning adds the steps of the document, a deviation (default: %(default)s)",
    )
    run_command.add_evaluation_arguments(parser)
    judge.preset(parser, task="aa_lcr")
    judge.preset(parser, hidden=False, backend="vllm", model_path=MODEL, eval_dataset_path=DATA, save_path=None)


def _generate(args: argparse.Namespace) -> int:
    from infini_eval.tasks.aa_lcr.answers import write_generations

    output = Path(args.output_json)
    args.save_path = args.save_path or str(output.with_suffix(".run"))
    own = {"workers": args.num_workers, "repeats": args.repeats, "prompt": args.prompt}
    args.option = [*(f"{name}={value}" for name, value in own.items()), *args.option]
    outcome = evaluate_and_report(run_command.run_config(args), args.timeout, report=False)
    if outcome.is_main:
        count = write_generations(outcome.folder, output)
        print(f"{count} answers saved to: {output}\nJudge them: python evaluate.py --input-json {output}")
    return EXIT_OK


def _add_evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    judge.add_arguments(parser)
    judge.preset(parser, hidden=False, backend="vllm", model_path=MODEL)


def _evaluate(args: argparse.Namespace) -> int:
    if args.model_path == MODEL:
        print(WEAK, file=sys.stderr)
    return judge.run(args)


GENERATE = Command(
    """Answer AA-LCR's questions with any backend and write the answers as one JSON file: `run --task aa_lcr`.

  python generate.py --backend openai --base-url http://127.0.0.1:8000/v1 --model NAME --output-json generations.json

The same command continues; evaluate.py judges the file.
""",
    _add_generate_arguments,
    _generate,
)
EVALUATE = Command(
    """Judge the answers that generate.py wrote and print the accuracy: `judge`, whose judge is the document's own if not named.

  python evaluate.py --input-json generations.json --backend openai --base-url http://127.0.0.1:8000/v1 --model JUDGE

The document's judge is a weak one.
""",
    _add_evaluate_arguments,
    _evaluate,
)
