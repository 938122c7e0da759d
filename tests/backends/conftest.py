"""What the tests of all backends share: data, a tiny Hugging Face model, scripted servers, and one way to ask a backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from infini_eval.api import registry
from infini_eval.api.backend import EarlyStop, WorkItem
from infini_eval.backends import _remote
from infini_eval.config import EvalConfig, ModelSettings, PromptSettings, RequestSettings
from infini_eval.data.reading import load_samples
from infini_eval.distributed.launch import launch
from infini_eval.records import Response
from infini_eval.tasks.passkey import TASK
from infini_eval.testing.tiny_models import write_tiny_hf_model
from support.scripted_server import ScriptedServer, ScriptedStep

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "examples/infinite-context-length/data/demo-1024-passkey-eval"
TOKENIZER = ROOT / "checkpoints/infini-demo/tokenizer"
SECRET = "sk-secret-0123456789"


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key to look for, no proxy between us and loopback, and no long waits between attempts."""
    for name in ("OPENAI_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.setenv(name, SECRET)
    for name in (
        "GOOGLE_API_KEY",
        "OPENAI_BASE_URL",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(_remote, "FIRST_DELAY_S", 0.01)


@pytest.fixture(scope="session")
def hf_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_hf_model(tmp_path_factory.mktemp("hf") / "tiny", TOKENIZER)


@pytest.fixture(scope="session")
def hf_chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_hf_model(tmp_path_factory.mktemp("hf") / "chat", TOKENIZER, chat=True)


@pytest.fixture
def serve() -> Iterator[Callable[..., ScriptedServer]]:
    """serve(script, otherwise, count) starts a scripted server that ends with the test."""
    running: list[ScriptedServer] = []

    def start(
        script: Sequence[ScriptedStep] = (), otherwise: ScriptedStep | None = None, **options: Any
    ) -> ScriptedServer:
        running.append(ScriptedServer(script, otherwise or ScriptedStep(), **options).__enter__())
        return running[-1]

    yield start
    for server in running:
        server.__exit__()


@pytest.fixture
def remote_config(tmp_path: Path) -> Callable[..., EvalConfig]:
    """remote_config(server, backend, ...) asks that server; keywords are fields of RequestSettings or EvalConfig."""

    def make(server: ScriptedServer, backend: str = "openai", **fields: Any) -> EvalConfig:
        own = {name: fields.pop(name) for name in list(fields) if name in RequestSettings.__dataclass_fields__}
        url = server.address + ("/v1" if backend == "openai" else "")
        requests = RequestSettings(**({"base_url": url, "concurrency": 1, "attempts": 3, "timeout_s": 300.0} | own))
        settings = (PromptSettings(fields.pop("chat_template", "auto")), requests)
        common = {"num_samples": 1, "depths": (0.0, 50.0, 100.0), "model": ModelSettings(device="cpu")}
        return EvalConfig(
            "scripted",
            str(tmp_path / "run"),
            str(DATA),
            backend=backend,
            backend_settings=settings,
            **(common | fields),
        )

    return make


@pytest.fixture
def opened() -> Callable[..., Any]:
    """opened(config) is a context with a Backend that has not loaded yet, and prepared samples."""

    @contextmanager
    def context(config: EvalConfig, count: int = 3) -> Iterator[SimpleNamespace]:
        with launch("cpu") as world:
            backend = registry.load("backends", config.backend)(config, world)
            samples = load_samples(DATA, depths=(0, 50, 100)).samples[:count]
            prepared = [backend.prepare(sample, TASK.locate(sample)) for sample in samples]
            plan = backend.plan(prepared)
            yield SimpleNamespace(backend=backend, samples=samples, prepared=prepared, plan=plan, world=world)

    return context


@pytest.fixture
def answers(opened: Callable[..., Any]) -> Callable[..., list[Response]]:
    """answers(config) loads a backend and asks it; responses in the order of the samples."""

    def ask(config: EvalConfig, count: int = 3) -> list[Response]:
        with opened(config, count) as it:
            it.backend.load(it.plan)
            return _in_order(it.backend, it.prepared)

    return ask


@pytest.fixture
def in_order() -> Callable[..., list[Response]]:
    """in_order(backend, prepared) asks a loaded backend; responses in the order of the samples."""
    return _in_order


def _in_order(backend: Any, prepared: Sequence[WorkItem], early_stop: EarlyStop | None = None) -> list[Response]:
    work = ((batch, prepared) for batch in backend.plan(prepared).batches)
    answered = backend.answer(work, early_stop=early_stop)
    pairs = ((row, one) for batch, many in answered for row, one in zip(batch.rows, many, strict=True))
    return [response for _, response in sorted(pairs, key=lambda pair: pair[0])]
