"""Answer AA-LCR's questions with any backend and write the answers as one JSON file (examples/aa-lcr/generate.py).

  python generate.py --backend openai --base-url http://127.0.0.1:8000/v1 --model NAME --output-json generations.json

The same command continues. What it does is `infini-eval run --task aa_lcr`; evaluate.py judges the file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from infini_eval.cli import evaluation_flags as run_command
from infini_eval.cli.flags import add_flag
from infini_eval.cli.judge import preset
from infini_eval.cli.passkey import evaluate_and_report
from infini_eval.errors import EXIT_OK
from infini_eval.options import positive_int

MODEL = "meta-llama/Llama-3.1-8B-Instruct"
DATA = "ArtificialAnalysis/AA-LCR"
OUTPUT = "aa-lcr-generations.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
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
    preset(parser, task="aa_lcr")
    preset(parser, hidden=False, backend="vllm", model_path=MODEL, eval_dataset_path=DATA, save_path=None)


def run(args: argparse.Namespace) -> int:
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
