"""A real server on loopback: `transformers serve` answers as the transformers backend does with the same weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from infini_eval.config import EvalConfig, ModelSettings, PromptSettings, RequestSettings
from support.model_servers import transformers_serve

pytest.importorskip("openai")
pytest.importorskip("fastapi", reason="pip install 'transformers[serving]'")
pytest.importorskip("uvicorn", reason="pip install 'transformers[serving]'")
DATA = Path(__file__).resolve().parents[2] / "examples/infinite-context-length/data/demo-1024-passkey-eval"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(hf_chat_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `transformers serve` with the tiny chat model."""
    with transformers_serve(hf_chat_model, tmp_path_factory.mktemp("serve") / "log") as url:
        yield url


def config_of(backend: str, model: Path, save_path: Path, mode: str, url: str | None = None) -> EvalConfig:
    requests = RequestSettings(base_url=url, concurrency=1, attempts=2, timeout_s=60)
    settings = (PromptSettings("on" if mode == "chat" else "off"), requests)
    tokenizer = str(model) if url else None
    cpu = ModelSettings(device="cpu")
    return EvalConfig(
        str(model),
        str(save_path),
        str(DATA),
        backend=backend,
        tokenizer=tokenizer,
        model=cpu,
        backend_settings=settings,
    )


@pytest.mark.parametrize("mode", ["chat", "completions"])
def test_served_and_loaded_here_it_answers_alike(server, hf_chat_model, answers, tmp_path, mode) -> None:
    served = answers(config_of("openai", hf_chat_model, tmp_path, mode, server), 2)
    loaded = answers(config_of("transformers", hf_chat_model, tmp_path, mode), 2)
    assert [one.error for one in served] == [None, None]
    assert [one.text for one in served] == [one.text for one in loaded]
    assert [one.prompt_tokens for one in served] == [one.prompt_tokens for one in loaded]
    assert served[0].details["completion_tokens"] == 15
