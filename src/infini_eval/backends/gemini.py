"""gemini: Google's Gemini models through google-genai; keys from GEMINI_API_KEY or GOOGLE_API_KEY."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Literal

from infini_eval.api.backend import BatchPlan
from infini_eval.backends._remote import AGAIN, REFUSED, Remote, Reply, SampleFailed, TryAgain, refused
from infini_eval.config import EvalConfig, PromptSettings
from infini_eval.distributed.launch import World
from infini_eval.errors import ConfigError
from infini_eval.keys import hide_keys, require_key
from infini_eval.packages import require, versions
from infini_eval.records import Sample

logger = logging.getLogger(__name__)
KEYS = ("GEMINI_API_KEY", "GOOGLE_API_KEY")
WITHHELD = ("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "OTHER")
TOO_LONG = ("exceeds the maximum number of tokens", "token count", "too long")


class GeminiBackend(Remote):
    """One model of Google's service. Every prompt is counted first: a count that the answer's usage undercuts is an error."""

    service = "gemini"

    def __init__(self, config: EvalConfig, world: World) -> None:
        super().__init__(config, world)
        if config.settings(PromptSettings).chat_template == "off":
            raise ConfigError("--chat-template off: Gemini models only chat", valid="auto, on")
        self._genai = require("google.genai", extra="gemini", purpose="the backend gemini")
        self._errors = require("google.genai.errors", extra="gemini", purpose="the backend gemini")
        try:
            self._genai.types.GenerateContentConfig(**self.extra)
        except ValueError as error:
            raise ConfigError(
                f"--request-extra: {error}", valid='{"thinking_config": {"thinking_budget": 0}}'
            ) from None
        self._key = require_key(*KEYS, what="the Gemini service")
        self.notes = []  # the service counts the tokens itself
        self._client: Any = None

    def environment(self) -> Mapping[str, Any]:
        return {**super().environment(), "packages": versions("google-genai")}

    def load(self, plan: BatchPlan) -> None:
        options = self._genai.types.HttpOptions(
            base_url=self._settings.base_url,
            timeout=round(self._settings.timeout_s * 1000),
            retry_options=self._genai.types.HttpRetryOptions(attempts=1),
        )
        self._client = self._genai.Client(api_key=self._key, vertexai=False, http_options=options)
        model, _ = self._retry(self._described)
        logger.info("%s takes %s tokens", self._config.model_path, getattr(model, "input_token_limit", None) or "?")

    def request(self, sample: Sample, seed: int) -> dict[str, Any]:
        sampling = self._config.sampling
        settings: dict[str, Any] = {
            "temperature": sampling.temperature,
            "max_output_tokens": self._config.max_new_tokens,
        }
        if sampling.temperature > 0:
            settings |= {"top_p": sampling.top_p, "seed": seed}
        if sampling.top_k:
            settings["top_k"] = sampling.top_k
        contents, settings = _contents(sample, settings)
        body = {"model": self._config.model_path, "contents": contents, "config": {**settings, **self.extra}}
        return {"service": "gemini", "base_url": self._settings.base_url, "body": body}

    def ask(self, request: Mapping[str, Any]) -> Reply:
        body = request["body"]
        config = self._genai.types.GenerateContentConfig(**body["config"])
        counted = self._call(lambda: self._client.models.count_tokens(model=body["model"], contents=body["contents"]))
        reply = _reply(self._call(lambda: self._client.models.generate_content(**(body | {"config": config}))))
        sent = counted.total_tokens
        if sent is not None and reply.prompt_tokens is not None and reply.prompt_tokens < sent:
            raise SampleFailed(f"truncated: the service read {reply.prompt_tokens:,} of {sent:,} prompt tokens")
        return reply

    def _described(self) -> Any:
        return self._call(lambda: self._client.models.get(model=self._config.model_path))

    def _call(self, ask: Any) -> Any:
        """Call the client; its errors in our terms."""
        try:
            return ask()
        except self._errors.APIError as error:
            raise self._of_status(error) from None
        except (ValueError, KeyError) as error:
            raise TryAgain(f"malformed reply: {hide_keys(str(error))[:300]}") from None
        except Exception as error:
            translated = self._of_transport(error)
            if translated is None:
                raise
            raise translated from None

    def _of_status(self, error: Any) -> Exception:
        message = hide_keys(" ".join(str(error.message).split()))[:500]
        text = f"status {error.code}: {message}"
        if "api key" in message.lower() and error.code == 400:
            return refused(401, message, valid=f"a valid key in {' or '.join(KEYS)}")
        if error.code in REFUSED:
            return refused(error.code, f"{message} (model {self._config.model_path!r})")
        if error.code == 400 and any(words in message.lower() for words in TOO_LONG):
            return SampleFailed(f"the prompt is too long for this model: {message}")
        return TryAgain(text) if error.code in AGAIN or error.code >= 500 else SampleFailed(text)

    def _of_transport(self, error: Exception) -> Exception | None:
        """The client lets errors of its HTTP library through; by name, for it may use either of two."""
        names = {kind.__name__ for kind in type(error).__mro__}
        reason = hide_keys(str(error)) or type(error).__name__
        if names & {"ConnectError", "ConnectTimeout", "UnsupportedProtocol"}:
            return TryAgain(
                f"cannot connect to {self._settings.base_url or 'the Gemini service'}: {reason}", unreachable=True
            )
        if "TimeoutException" in names:
            return SampleFailed(
                f"no reply within {self._settings.timeout_s:g} s (--request-timeout); not asked again, for the service "
                "may still be reading the prompt"
            )
        if "TransportError" in names or "DecodingError" in names:
            return TryAgain(f"the reply was cut off: {reason}")
        return None


def _contents(sample: Sample, settings: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """What is asked: a text, or the turns of a chat, whose system texts go into the settings."""
    if not sample.turns:
        return sample.prompt, settings
    system = "\n\n".join(text for role, text in sample.turns if role == "system")
    turns = [
        {"role": "model" if role == "assistant" else "user", "parts": [{"text": text}]}
        for role, text in sample.turns
        if role != "system"
    ]
    return turns, settings | ({"system_instruction": system} if system else {})


def _reply(answer: Any) -> Reply:
    usage = answer.usage_metadata
    blocked = getattr(answer.prompt_feedback, "block_reason", None)
    if blocked:
        raise SampleFailed(f"the service refused the prompt: {_name(blocked)}")
    if not answer.candidates:
        raise TryAgain("malformed reply without candidates")
    candidate = answer.candidates[0]
    reason = _name(candidate.finish_reason) if candidate.finish_reason else "STOP"
    text = "".join(part.text for part in _parts(candidate) if part.text and not part.thought)
    thought = getattr(usage, "thoughts_token_count", None)
    if not text and reason in WITHHELD:
        raise SampleFailed(f"the service withheld the answer: {reason}")
    if not text and reason == "MAX_TOKENS" and thought:
        raise SampleFailed(
            f"all tokens went into thinking ({thought}): raise --max-new-tokens, or pass --request-extra "
            '\'{"thinking_config": {"thinking_budget": 0}}\''
        )
    details = {
        "model_version": answer.model_version,
        "completion_tokens": getattr(usage, "candidates_token_count", None),
        "reasoning_tokens": thought,
        "cached_prompt_tokens": getattr(usage, "cached_content_token_count", None),
    }
    finish: Literal["stop", "length"] = "length" if reason == "MAX_TOKENS" else "stop"
    said = {name: value for name, value in details.items() if value is not None}
    return Reply(text, finish, getattr(usage, "prompt_token_count", None), said)


def _parts(candidate: Any) -> Any:
    return (candidate.content.parts if candidate.content else None) or []


def _name(value: Any) -> str:
    return str(getattr(value, "name", value))
