"""What must start fast imports nothing heavy: looked up in sys.modules of a fresh process, never timed."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys

import pytest

import infini_eval
from infini_eval.cli.main import COMMANDS
from support.limits import PROCESS_S

HEAVY = {"datasets", "flash_attn", "matplotlib", "numpy", "pandas", "pyarrow", "rich", "scipy", "tokenizers", "torch"}
HEAVY |= {"transformers", "safetensors", "huggingface_hub", "yaml"}
TORCH_FREE = (
    "arrow",
    "cli",
    "clusters",
    "config",
    "data",
    "errors",
    "exports",
    "planning",
    "records",
    "registry",
    "reports",
    "results",
)
TORCH_FREE += ("scorers", "tasks")


def modules_after(code: str) -> set[str]:
    """Top-level names in sys.modules of a fresh interpreter that ran `code`."""
    report = (
        "; import json, sys; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, timeout=PROCESS_S)
    assert result.returncode == 0, result.stderr
    return set(json.loads(result.stderr.splitlines()[-1]))


def torch_free_modules() -> list[str]:
    walk = pkgutil.walk_packages(infini_eval.__path__, "infini_eval.")
    return [module.name for module in walk if module.name.split(".")[1] in TORCH_FREE]


def test_help_imports_nothing_heavy():
    code = "from infini_eval.cli.main import main; main(['--help'])"
    assert not modules_after(code) & HEAVY


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_imports_nothing_heavy(command: str):
    code = (
        "import contextlib; from infini_eval.cli.main import main\n"
        f"with contextlib.suppress(SystemExit): main(['{command}', '--help'])\n0"
    )
    assert not modules_after(code) & HEAVY


def test_torch_free_packages_import_no_torch():
    names = torch_free_modules()
    assert len(names) >= len(TORCH_FREE) - 1  # planning may be absent
    assert "torch" not in modules_after(
        "import importlib; [importlib.import_module(name) for name in " + repr(names) + "]"
    )


def test_the_package_itself_imports_nothing_heavy():
    assert not modules_after("import infini_eval; infini_eval.__version__") & HEAVY
