"""`infini-eval serve` as processes: its end by signals, tp and pp under a launcher, and our own openai backend on it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import openai
import pytest

from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.cli.main import main
from infini_eval.config import ModelSettings
from infini_eval.engine.native_model import NativeModel
from infini_eval.errors import EXIT_INTERRUPTED, EXIT_USAGE
from infini_eval.results.samples import iter_samples
from infini_eval.testing.tiny_models import tiny_config, write_tiny_checkpoint
from support.limits import PROCESS_S

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "checkpoints/infini-demo"
DATA = ROOT / "examples/infinite-context-length/data/demo-1024-passkey-eval"
ENDLESS = 1 << 20
READY = re.compile(r"serving .* at (http://\S+)")


class Server:
    """A server's process, what it has written, and a client of it."""

    def __init__(self, process: subprocess.Popen, log: Path, name: str) -> None:
        self.process, self.log, self.name = process, log, name
        self.url = self.wait_for(READY)[1]
        self.client = openai.OpenAI(base_url=self.url, api_key="none", max_retries=0, timeout=PROCESS_S)

    def wait_for(self, pattern: str | re.Pattern) -> re.Match:
        """What the server writes."""
        deadline = time.monotonic() + PROCESS_S
        while not (found := re.search(pattern, self.log.read_text(errors="replace"))):
            ended = self.process.poll() is not None
            assert not ended and time.monotonic() < deadline, self.log.read_text(errors="replace")
            time.sleep(0.05)
        return found

    def ask(self, **fields):
        """A completion, greedy unless said otherwise."""
        asked = {"model": self.name, "prompt": "The pass key is", "temperature": 0, "max_tokens": 8}
        return self.client.completions.create(**asked | fields)

    def end(self) -> int:
        """The exit status."""
        return self.process.wait(PROCESS_S)

    def ranks(self) -> list[int]:
        """Process ids of the ranks that the launcher has started, by rank."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return sorted(map(int, children))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """start(checkpoint, *flags, processes=1): a server on a free port; it ends with the test."""
    with contextlib.ExitStack() as stack:

        def start_one(checkpoint: Path, *flags: str, processes: int = 1) -> Server:
            launcher = ["launch", "-n", str(processes)] if processes > 1 else []
            command = [sys.executable, "-m", "infini_eval", *launcher, "serve", str(checkpoint), "--port", "0"]
            log = tmp_path / "log"
            with log.open("wb") as output:
                process = subprocess.Popen(
                    [*command, "--device", "cpu", *flags],
                    stdout=output,
                    stderr=output,
                    env=os.environ | {"OMP_NUM_THREADS": "1"},
                    start_new_session=True,
                )
            stack.callback(process.wait)
            stack.callback(_kill, process)
            return Server(process, log, str(checkpoint))

        yield start_one


def _kill(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A random model that never ends an answer, with the demo's tokenizer beside it."""
    folder = write_tiny_checkpoint(tmp_path / "tiny" / "1", tiny_config(vocab_size=1024))
    (tmp_path / "tiny" / "tokenizer").symlink_to(DEMO / "tokenizer")
    return folder


def test_a_signal_ends_it_after_the_requests_in_hand(start, tiny):
    server = start(tiny, "--grace", "600", "--max-new-tokens", "1m")
    stream = server.ask(stream=True, max_tokens=2000)
    parts = iter(stream)
    next(parts)
    server.process.send_signal(signal.SIGTERM)
    server.wait_for("stopping .SIGTERM.")
    with pytest.raises(openai.InternalServerError, match="stopping"):
        server.ask()
    *_, last = parts
    assert last.choices[0].finish_reason == "length"
    assert server.end() == 0


def test_what_is_not_finished_in_time_is_told_so(start, tiny):
    server = start(tiny, "--grace", "1", "--max-new-tokens", "1m")
    parts = iter(server.ask(stream=True, max_tokens=ENDLESS))
    next(parts)
    server.process.send_signal(signal.SIGINT)
    with pytest.raises(openai.APIError, match="1 s were not enough"):
        for _ in parts:
            pass
    assert server.end() == 0


def test_a_second_signal_ends_it_at_once(start, tiny):
    server = start(tiny, "--grace", "600", "--max-new-tokens", "1m")
    parts = iter(server.ask(stream=True, max_tokens=ENDLESS))
    next(parts)
    server.process.send_signal(signal.SIGTERM)
    server.wait_for("stopping")
    time.sleep(2.5)  # a signal that comes twice within a moment is one
    server.process.send_signal(signal.SIGTERM)
    assert server.end() == EXIT_INTERRUPTED


@pytest.mark.distributed
@pytest.mark.parametrize("axis", ["tp", "pp"])
def test_several_processes_answer_as_one(start, tiny, tokenizer, axis):
    model = NativeModel.load(Checkpoint(tiny), ModelSettings(device="cpu"))
    server = start(tiny, f"--{axis}", "2", "--max-new-tokens", "1m", processes=2)
    prompts = ["The pass key is", "The grass is green. " * 20, "short"]
    rows = [tokenizer.encode(prompt) for prompt in prompts]
    expected = model.generate(rows, 8, stop_ids=(), vocabulary=tokenizer.vocab_size)
    assert [one.text for one in server.ask(prompt=prompts).choices] == [tokenizer.decode(one) for one in expected]
    told = server.ask(prompt=prompts[1], echo=True, logprobs=2).choices[0].logprobs
    row = np.concatenate([rows[1], expected[1]])
    (scored,) = model.score([row], [len(row) - 1], vocabulary=tokenizer.vocab_size)
    np.testing.assert_allclose(told.token_logprobs[1:], scored.logprobs, atol=1e-4)
    stop = server.ask(stop=tokenizer.decode(expected[0])[3:6], n=2)
    assert {one.text for one in stop.choices} == {tokenizer.decode(expected[0])[:3]}
    stream = server.ask(stream=True, max_tokens=ENDLESS)
    next(iter(stream))
    stream.close()  # ends its computation on every rank: the next answer comes
    assert server.ask(prompt=prompts[2]).choices[0].text == tokenizer.decode(expected[2])
    os.kill(server.ranks()[1], signal.SIGTERM)
    assert server.end() == 0, server.log.read_text()


@pytest.mark.distributed
def test_a_rank_that_is_lost_ends_all_with_a_message(start, tiny):
    server = start(tiny, "--tp", "2", processes=2)
    os.kill(server.ranks()[1], signal.SIGKILL)
    assert server.end() not in (0, EXIT_INTERRUPTED)
    assert "SIGKILL" in server.log.read_text() or "no heartbeat" in server.log.read_text()


def answers_of(folder: Path) -> dict[str, tuple]:
    """What a run's samples were answered, and how that was judged."""
    records = [line.record for line in iter_samples(folder) if line.record]
    return {one["sample_key"]: (one["generation_text"], one["correct"], one["status"]) for one in records}


def test_our_own_openai_backend_gets_the_answers_of_the_native_one(start, tmp_path):
    server = start(DEMO, "--model-name", "demo")
    what = ["run", "--task", "passkey", "--eval_dataset_path", str(DATA), "--num_samples", "2", "--quiet"]
    assert (
        main(
            [*what, "--model", str(DEMO), "--device", "cpu", "--no-early-stop", "--save_path", str(tmp_path / "native")]
        )
        == 0
    )
    served = [
        "--backend",
        "openai",
        "--base-url",
        server.url,
        "--model",
        "demo",
        "--tokenizer",
        str(DEMO / "tokenizer"),
    ]
    assert main([*what, *served, "--chat-template", "off", "--save_path", str(tmp_path / "served")]) == 0
    assert answers_of(tmp_path / "served") == answers_of(tmp_path / "native") != {}


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--api-key-env", "NO_SUCH_KEY"], "the environment has no such variable"),
        (["--dp", "2"], "a server is one replica"),
        (["--host", "no.such.host.invalid"], "cannot be used"),
        (["--chat-template", "/no/such/file"], "cannot be read"),
        (["--tp", "2"], "processes"),
    ],
)
def test_a_setting_that_cannot_be_is_one_message(capsys, flags, says):
    assert main(["serve", str(DEMO), "--port", "0", "--device", "cpu", *flags]) == EXIT_USAGE
    message = capsys.readouterr().err
    assert says in message and "Traceback" not in message


def test_without_its_packages_it_says_how_to_install_them(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve", str(DEMO)]) == EXIT_USAGE
    assert "pip install 'infini-eval[serve]'" in capsys.readouterr().err
