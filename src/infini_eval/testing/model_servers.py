"""Real OpenAI-compatible servers on loopback for tests, with a model of one's own: `transformers serve` and vLLM."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

from infini_eval.testing.limits import PROCESS_S


@contextlib.contextmanager
def transformers_serve(model: Path, log: Path) -> Iterator[str]:
    """Serve `model` on the CPU and yield the base URL; the server ends with the block."""
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(model), "--device", "cpu"]
    with _serving(command, {}, log) as url:
        yield url


@contextlib.contextmanager
def vllm_serve(python: str, model: Path, log: Path, *flags: str) -> Iterator[str]:
    """The same with vLLM, by the interpreter of the environment that has it; the model's name is its folder's path.

    The server's module, not `vllm serve`: that wants a distribution called vllm, which the CPU repackages are not.
    """
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), *flags]
    with _serving(command, {"VLLM_CPU_KVCACHE_SPACE": "1", "DO_NOT_TRACK": "1"}, log) as url:
        yield url


@contextlib.contextmanager
def _serving(command: Sequence[str], variables: dict[str, str], log: Path) -> Iterator[str]:
    port = _free_port()
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | variables
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,  # vLLM's workers end with it, as one group
        )
    try:
        _wait(process, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # transformers serve ignores SIGTERM while it generates
        process.wait()


def _wait(process: subprocess.Popen, url: str, log: Path) -> None:
    deadline = time.monotonic() + PROCESS_S
    while not _answers(url):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the server did not start:\n{log.read_text(errors='replace')[-4000:]}")
        time.sleep(0.2)


def _answers(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        return opener.open(url, timeout=2).status == 200
    except (urllib.error.URLError, OSError):
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
