"""openai: any server that speaks OpenAI's protocol (vLLM, transformers serve, SGLang, OpenAI itself)."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

from infini_eval.api.backend import BatchPlan
from infini_eval.backends._remote import AGAIN, REFUSED, Remote, Reply, SampleFailed, TryAgain, refused
from infini_eval.config import EvalConfig, PromptSettings
from infini_eval.distributed.launch import World
from infini_eval.errors import BackendError, ConfigError, in_one_line
from infini_eval.keys import hide_keys, key_from_environment, require_key
from infini_eval.packages import require, versions
from infini_eval.records import Sample

logger = logging.getLogger(__name__)
KEY = "OPENAI_API_KEY"
NO_KEY = "none"  # servers of one's own need no key, the client wants a word
CONNECT_S = 30.0
TOO_LONG = ("context length", "context_length", "maximum context", "too long", "max_model_len", "input tokens")
NO_CREDIT = "insufficient_quota"  # a 429 that does not pass
PINNED = "pinned to"  # transformers serve: it serves another model
NO_TEMPLATE = " (some servers answer so where the model has no chat template: --chat-template off)"
UNSUPPORTED = ("unsupported_parameter", "unsupported_value", "unknown_parameter")


class OpenAiBackend(Remote):
    """Chat completions for chat models, completions for base models; keys from OPENAI_API_KEY."""

    def __init__(self, config: EvalConfig, world: World) -> None:
        super().__init__(config, world)
        self._openai = require("openai", extra="openai", purpose="the backend openai")
        self._base_url = _checked_url(self._settings.base_url or os.environ.get("OPENAI_BASE_URL") or None)
        self.service = "compatible" if self._base_url else "openai"
        self._key = (key_from_environment(KEY) or NO_KEY) if self._base_url else require_key(KEY, what="api.openai.com")
        self._chat = self._is_chat(config.settings(PromptSettings).chat_template)
        if config.sampling.top_k and not self._base_url:
            raise ConfigError(
                f"--top-k {config.sampling.top_k}: OpenAI's own service does not know it", valid="--top-k 0"
            )
        self._client: Any = None

    def identity(self) -> Mapping[str, Any]:
        return {**super().identity(), "api": "chat" if self._chat else "completions"}

    def environment(self) -> Mapping[str, Any]:
        return {**super().environment(), "base_url": self._base_url, "packages": versions("openai")}

    def load(self, plan: BatchPlan) -> None:
        timeout = self._openai.Timeout(self._settings.timeout_s, connect=CONNECT_S)
        self._client = self._openai.OpenAI(api_key=self._key, base_url=self._base_url, timeout=timeout, max_retries=0)
        served, _ = self._retry(self._served_models)
        logger.info("%s at %s", "chat completions" if self._chat else "completions", self._client.base_url)
        if served and self._config.model_path not in served:
            logger.warning("the server does not list %r; it lists %s", self._config.model_path, ", ".join(served[:10]))

    def request(self, sample: Sample, seed: int) -> dict[str, Any]:
        sampling, budget = self._config.sampling, self._config.max_new_tokens
        request: dict[str, Any] = {"model": self._config.model_path, "temperature": sampling.temperature}
        if self._chat:
            request["messages"] = sample.messages
        else:
            request["prompt"] = sample.prompt
        request["max_tokens" if self._base_url or not self._chat else "max_completion_tokens"] = budget
        if sampling.temperature > 0:
            request |= {"top_p": sampling.top_p, "seed": seed}
        more = {"top_k": sampling.top_k} if sampling.top_k else {}
        return {"base_url": self._base_url, "body": request, "extra_body": {**more, **self.extra}}

    def ask(self, request: Mapping[str, Any]) -> Reply:
        endpoint = self._client.chat.completions if self._chat else self._client.completions
        try:
            answer = endpoint.create(**request["body"], extra_body=request["extra_body"] or None)
        except (self._openai.APIError, ValueError) as error:  # ValueError: a body that is not JSON
            raise self._translated(error) from None
        reply = _reply(answer, chat=self._chat)
        _refuse_cut_answer(reply, {**request["body"], **request["extra_body"]})
        return reply

    def _is_chat(self, asked: Literal["auto", "on", "off"]) -> bool:
        """auto: completions only for a model whose tokenizer is known to have no chat template."""
        if asked == "auto" and self._base_url and self.tokenizer is not None:
            return self.tokenizer.chat_template is not None
        return asked != "off"

    def _served_models(self) -> list[str]:
        """Ids of the models that the server lists; none where it does not say. TryAgain where it cannot be reached."""
        try:
            return [model.id for model in self._client.with_options(timeout=CONNECT_S).models.list().data or []]
        except self._openai.APIConnectionError as error:
            if _unreachable(error):
                raise self._cannot_connect(error) from None
            return []
        except (self._openai.APIError, ValueError, AttributeError, TypeError) as error:
            logger.info("the server does not list its models: %s", hide_keys(str(error))[:200])
            return []

    def _translated(self, error: Exception) -> Exception:
        """What an error of the client means for the sample or the run."""
        if isinstance(error, self._openai.APIStatusError):
            return _of_status(error, self._config.model_path, NO_TEMPLATE if self._chat and self._base_url else "")
        if _unreachable(error):
            return self._cannot_connect(error)
        if isinstance(error, self._openai.APITimeoutError):
            return SampleFailed(
                f"no reply within {self._settings.timeout_s:g} s (--request-timeout); not asked again, for the server "
                "may still be reading the prompt"
            )
        return TryAgain(f"the reply was cut off or cannot be read: {hide_keys(_reason(error))}")

    def _cannot_connect(self, error: Exception) -> TryAgain:
        return TryAgain(f"cannot connect to {self._client.base_url}: {hide_keys(_reason(error))}", unreachable=True)


def _reply(answer: Any, *, chat: bool) -> Reply:
    """The first choice of a completion; TryAgain where the reply is not one, SampleFailed where it holds no answer."""
    choices = getattr(answer, "choices", None)
    if not choices:
        raise TryAgain(f"malformed reply without choices: {hide_keys(str(answer))[:200]}")
    choice, usage = choices[0], getattr(answer, "usage", None)
    text = (choice.message.content or getattr(choice.message, "refusal", None)) if chat else choice.text
    completion = getattr(usage, "completion_tokens", None)
    thought = getattr(getattr(usage, "completion_tokens_details", None), "reasoning_tokens", None)
    if choice.finish_reason == "content_filter":
        raise SampleFailed("the service's content filter withheld the answer")
    if not text and choice.finish_reason == "length" and thought:
        raise SampleFailed(
            f"all {completion} tokens went into reasoning: raise --max-new-tokens, or lower the effort with "
            '--request-extra \'{"reasoning_effort": "low"}\''
        )
    details = {
        "model_version": getattr(answer, "model", None),
        "completion_tokens": completion,
        "reasoning_tokens": thought,
        "cached_prompt_tokens": getattr(getattr(usage, "prompt_tokens_details", None), "cached_tokens", None),
    }
    finish: Literal["stop", "length"] = "length" if choice.finish_reason == "length" else "stop"
    said = {name: value for name, value in details.items() if value is not None}
    return Reply(text or "", finish, getattr(usage, "prompt_tokens", None), said)


def _refuse_cut_answer(reply: Reply, body: Mapping[str, Any]) -> None:
    """SampleFailed where the answer ended short of what was asked for: the prompt had filled the server's window."""
    asked, said = body.get("max_completion_tokens") or body.get("max_tokens"), reply.details.get("completion_tokens")
    if reply.finish_reason == "length" and asked and said is not None and said < asked:
        raise SampleFailed(
            f"truncated: the server ended the answer after {said:,} of {asked:,} tokens: prompt and answer do not fit "
            "into its context"
        )


def _of_status(error: Any, model: str, hint: str) -> Exception:
    status, message = error.status_code, hide_keys(_message(error))
    if error.code == NO_CREDIT:
        return refused(status, message)
    if status in AGAIN:
        text = f"status {status}: {message}{hint if status == 500 else ''}"
        return TryAgain(text, _retry_after_s(error.response.headers))
    if status in (400, 413, 422) and any(words in message.lower() for words in TOO_LONG):
        return SampleFailed(f"the prompt is too long for this server: {message}")
    if status == 400 and "chat template" in message.lower():
        return refused(status, message, valid="--chat-template off: plain completions, as base models need them")
    if status in REFUSED or status == 422 or error.code in UNSUPPORTED or PINNED in message.lower():
        return refused(status, f"{message} (model {model!r})")
    return TryAgain(f"status {status}: {message}") if status >= 500 else SampleFailed(f"status {status}: {message}")


def _message(error: Any) -> str:
    body = error.body if isinstance(error.body, Mapping) else {}
    text = body.get("message") or body.get("detail") or error.message
    return in_one_line(text)


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    try:
        return float(headers["retry-after-ms"]) / 1000 if "retry-after-ms" in headers else float(headers["retry-after"])
    except (KeyError, ValueError):
        return None  # absent, or a date: our own delay will do


def _unreachable(error: Exception) -> bool:
    """Whether no connection was made at all (by the name: the client may use either of two HTTP libraries)."""
    return type(error.__cause__).__name__ in ("ConnectError", "ConnectTimeout", "UnsupportedProtocol")


def _reason(error: Exception) -> str:
    return str(error.__cause__ or error) or type(error).__name__


def _checked_url(url: str | None) -> str | None:
    if url is None:
        return None
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"--base-url {hide_keys(url)!r} is not an address", valid="http://HOST:PORT/v1")
    if parts.username or parts.password or "key=" in parts.query:
        raise BackendError(
            f"--base-url for {parts.hostname} holds a name or key, which would be recorded with the run",
            next_step=f"leave it out and export {KEY}=...",
        )
    return url
