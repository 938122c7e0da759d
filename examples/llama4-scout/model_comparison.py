"""Llama 4 Scout against Gemini, or any models, on one needle; the same as `infini-eval model-comparison` (see --help)."""

import sys

from infini_eval.cli.main import run_command

if __name__ == "__main__":
    sys.exit(run_command("model-comparison"))
