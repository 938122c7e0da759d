"""A package that is not installed costs one message with the line that installs it: each backend, in a process without it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from infini_eval.testing.limits import PROCESS_S

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "checkpoints/llama-demo"
DATA = ROOT / "examples/infinite-context-length/data/demo-1024-passkey-eval"
# Hides a package as if it were not installed: neither importable, nor found by those who only look whether it is there.
WITHOUT = """
import importlib.metadata, importlib.util, sys
name = sys.argv[1]
find, version = importlib.util.find_spec, importlib.metadata.version
class Missing:
    def find_spec(self, module, path=None, target=None):
        if module == name or module.startswith(name + "."):
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)
def told(distribution):
    if distribution.replace("-", ".").startswith(name):
        raise importlib.metadata.PackageNotFoundError(distribution)
    return version(distribution)
importlib.util.find_spec = lambda module, *rest: None if module.split(".")[0] == name else find(module, *rest)
importlib.metadata.version = told
sys.meta_path.insert(0, Missing())
from infini_eval.cli.main import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize(
    ("package", "backend", "flags", "extra"),
    [
        ("openai", "openai", [], "openai"),
        ("google", "gemini", [], "gemini"),
        ("vllm", "vllm", [], "vllm"),
        ("transformers", "transformers", [], "transformers"),
        ("bitsandbytes", "transformers", ["--quantization", "4bit"], "bitsandbytes"),
        ("accelerate", "transformers", ["--device-map", "auto"], "transformers"),
    ],
)
def test_the_line_that_installs_it(tmp_path: Path, package: str, backend: str, flags: list[str], extra: str) -> None:
    command = [sys.executable, "-c", WITHOUT, package, "run", "--task", "passkey", "--backend", backend, *flags]
    command += [
        "--model",
        str(MODEL),
        "--eval_dataset_path",
        str(DATA),
        "--save_path",
        str(tmp_path),
        "--num_samples",
        "1",
    ]
    environment = os.environ | {"OPENAI_API_KEY": "none-here", "GEMINI_API_KEY": "none-here", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=PROCESS_S)
    assert done.returncode == 2, done.stderr
    assert f"pip install 'infini-eval[{extra}]'" in done.stderr and "Traceback" not in done.stderr
