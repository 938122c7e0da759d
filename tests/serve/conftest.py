"""A small random model, served inside this process on a free port, and the real client of OpenAI on it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openai
import pytest

from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.config import ModelSettings
from infini_eval.data.tokenizer import Tokenizer, load_tokenizer
from infini_eval.distributed.announce import Announcer
from infini_eval.distributed.launch import launch
from infini_eval.engine.native_model import NativeModel
from infini_eval.serve.replica import Replica
from infini_eval.serve.scheduler import Scheduler
from infini_eval.serve.server import answering_the_web, listening
from infini_eval.serve.service import Service
from infini_eval.serve.settings import ServeSettings
from infini_eval.testing.tiny_models import CHAT_TEMPLATE, tiny_config, write_tiny_checkpoint
from support.limits import PROCESS_S

ROOT = Path(__file__).resolve().parents[2]
TOKENIZER = ROOT / "checkpoints/infini-demo/tokenizer"
NAME = "tiny"


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy between us and loopback."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def tokenizer() -> Tokenizer:
    return load_tokenizer(TOKENIZER)


@pytest.fixture
def model(tmp_path: Path) -> NativeModel:
    folder = write_tiny_checkpoint(tmp_path / "1", tiny_config(vocab_size=1024))
    return NativeModel.load(Checkpoint(folder), ModelSettings(device="cpu"))


@pytest.fixture
def replica(model: NativeModel, tokenizer: Tokenizer) -> Iterator[Replica]:
    with launch("cpu") as world:
        yield Replica(model, Announcer(world), frozenset(), tokenizer.vocab_size)


@pytest.fixture
def serve(replica: Replica, tokenizer: Tokenizer) -> Iterator[Callable[..., SimpleNamespace]]:
    """serve(key=..., chat=True, paused=False, **settings): `client`, `url`, `service`; `resume` starts a paused engine."""
    with contextlib.ExitStack() as stack:

        def start(*, key: str | None = None, chat: bool = True, paused: bool = False, **fields: Any) -> SimpleNamespace:
            settings = ServeSettings(port=0, **fields)
            tokenizer.settings["chat_template"] = CHAT_TEMPLATE if chat else None
            scheduler = Scheduler(replica, tokenizer, max_batch=settings.max_batch, max_queue=settings.max_queue)
            most = settings.max_prompt_tokens
            service = Service(NAME, tokenizer, scheduler, settings, replica.vocabulary, most, key)
            listener = stack.enter_context(listening(settings))
            engine = threading.Thread(target=scheduler.work, daemon=True)

            def finish() -> None:
                scheduler.fail_all("over")
                if engine.is_alive():
                    engine.join(PROCESS_S)

            stack.callback(finish)
            url = stack.enter_context(answering_the_web(service, listener))
            client = openai.OpenAI(base_url=url, api_key=key or "none", max_retries=0, timeout=PROCESS_S)
            stack.callback(client.close)
            if not paused:
                engine.start()
            return SimpleNamespace(client=client, url=url, service=service, resume=engine.start)

        yield start
