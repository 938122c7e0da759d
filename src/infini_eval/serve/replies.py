"""Replies in OpenAI's shapes: completions and chats, whole or as streamed chunks, with log-probabilities and usage."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from infini_eval.api.backend import UNFINISHED
from infini_eval.serve.protocol import ChatRequest, CompletionRequest
from infini_eval.serve.scheduler import Answer, Part, TokenScore
from infini_eval.serve.service import Service
from infini_eval.serve.text import AnswerText


class Replies:
    """The replies to one request, built from the reports of its jobs. Indices are those of the choices."""

    kind: str
    chunk_kind: str
    prefix: str

    def __init__(self, service: Service, prompts: Sequence[np.ndarray], choices: int) -> None:
        self._service, self._prompts, self._choices = service, prompts, choices
        self._id, self._created = f"{self.prefix}{uuid.uuid4().hex}", int(time.time())

    def whole(self, answers: Mapping[int, Answer]) -> dict[str, Any]:
        """The reply that is not streamed."""
        choices = [self.choice(index, answers[index]) for index in sorted(answers)]
        return self._frame(self.kind, choices) | {"usage": self._usage(answers)}

    def chunks(self, index: int, report: Part | Answer) -> Iterator[dict[str, Any]]:
        """The chunks of a streamed reply that a report leads to."""
        for choice in self.pieces(index, report):
            yield self._frame(self.chunk_kind, [choice])

    def opening(self) -> Iterator[dict[str, Any]]:
        """The chunks of a streamed reply before anything is computed."""
        for index in range(len(self._prompts) * self._choices):
            for choice in self.first_pieces(index):
                yield self._frame(self.chunk_kind, [choice])

    def usage_chunk(self, answers: Mapping[int, Answer]) -> dict[str, Any]:
        """The chunk at the end of a streamed reply that counts tokens."""
        return self._frame(self.chunk_kind, []) | {"usage": self._usage(answers)}

    def choice(self, index: int, answer: Answer) -> dict[str, Any]:
        """A choice of a whole reply."""
        raise NotImplementedError

    def pieces(self, index: int, report: Part | Answer) -> Iterator[dict[str, Any]]:
        """Choices of chunks."""
        raise NotImplementedError

    def first_pieces(self, index: int) -> Iterator[dict[str, Any]]:
        """Choices of the chunks that come first."""
        raise NotImplementedError

    def _frame(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        named = {"id": self._id, "object": kind, "created": self._created, "model": self._service.name}
        return named | {"choices": choices}

    def _usage(self, answers: Mapping[int, Answer]) -> dict[str, Any]:
        """Prompts count once, whatever n."""
        prompt_tokens = sum(map(len, self._prompts))
        new_tokens = sum(answer.new_tokens for answer in answers.values())
        reused = sum(answers[index].reused_tokens for index in answers if index % self._choices == 0)
        return {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": new_tokens,
            "total_tokens": prompt_tokens + new_tokens,
            "prompt_tokens_details": {"cached_tokens": reused},
        }


class CompletionReplies(Replies):
    """Replies of /v1/completions."""

    kind = chunk_kind = "text_completion"
    prefix = "cmpl-"

    def __init__(self, service: Service, prompts: Sequence[np.ndarray], request: CompletionRequest) -> None:
        super().__init__(service, prompts, request.choices)
        self._request = request

    def choice(self, index: int, answer: Answer) -> dict[str, Any]:
        """The text, after the prompt's where that is echoed, and the log-probabilities of its tokens."""
        before = self._echoed(index)
        scores = None if answer.scores is None else [*(answer.prompt_scores or ()), *answer.scores]
        logprobs = None if scores is None else self._logprobs(scores, 0)
        return _text_choice(index, before + answer.text, logprobs, answer.finish_reason)

    def first_pieces(self, index: int) -> Iterator[dict[str, Any]]:
        """The echoed prompt."""
        if self._request.echo and self._request.logprobs is None:
            yield _text_choice(index, self._echoed(index))

    def pieces(self, index: int, report: Part | Answer) -> Iterator[dict[str, Any]]:
        """A part of the text; with log-probabilities, which are known at the end, the whole and then the finish reason."""
        if isinstance(report, Part):
            yield _text_choice(index, report.text)
            return
        if report.scores is not None:
            yield self.choice(index, report) | {"finish_reason": None}
        yield _text_choice(index, "", finish_reason=report.finish_reason)

    def _echoed(self, index: int) -> str:
        if not self._request.echo:
            return ""
        prompt = self._request.prompts[index // self._choices]
        return prompt if isinstance(prompt, str) else self._service.tokenizer.decode(prompt)

    def _logprobs(self, scores: Sequence[TokenScore], start: int) -> dict[str, Any]:
        text = AnswerText(self._service.tokenizer)
        for score in scores:
            text.add(score.token_id)
        written = self._service.token_text
        tops: list[dict[str, float] | None] = []
        for score in scores:
            top: dict[str, float] = {}
            for token_id, logprob in score.top:
                top.setdefault(written(token_id), logprob)
            tops.append(None if score.logprob is None else top)
        return {
            "tokens": [written(score.token_id) for score in scores],
            "token_logprobs": [score.logprob for score in scores],
            "top_logprobs": tops if self._request.logprobs else None,
            "text_offset": [start + offset for offset in text.offsets],
        }


def _text_choice(
    index: int, text: str, logprobs: dict[str, Any] | None = None, finish_reason: str | None = None
) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}


class ChatReplies(Replies):
    """Replies of /v1/chat/completions."""

    kind, chunk_kind, prefix = "chat.completion", "chat.completion.chunk", "chatcmpl-"

    def __init__(self, service: Service, prompts: Sequence[np.ndarray], request: ChatRequest) -> None:
        super().__init__(service, prompts, request.choices)

    def choice(self, index: int, answer: Answer) -> dict[str, Any]:
        """The message, and the log-probabilities of its tokens."""
        return {
            "index": index,
            "message": {"role": "assistant", "content": answer.text, "refusal": None},
            "logprobs": self._logprobs(answer),
            "finish_reason": answer.finish_reason,
        }

    def first_pieces(self, index: int) -> Iterator[dict[str, Any]]:
        """Who speaks."""
        yield _delta(index, {"role": "assistant", "content": ""})

    def pieces(self, index: int, report: Part | Answer) -> Iterator[dict[str, Any]]:
        """A part of the message; with log-probabilities, which are known at the end, the whole and then the finish reason."""
        if isinstance(report, Part):
            yield _delta(index, {"content": report.text})
            return
        if report.scores is not None:
            yield _delta(index, {"content": report.text}) | {"logprobs": self._logprobs(report)}
        yield _delta(index, {}, report.finish_reason)

    def _logprobs(self, answer: Answer) -> dict[str, Any] | None:
        if answer.scores is None:
            return None
        content = [
            self._told(score.token_id, score.logprob or 0.0)
            | {"top_logprobs": [self._told(token_id, logprob) for token_id, logprob in score.top]}
            for score in answer.scores
        ]
        return {"content": content, "refusal": None}

    def _told(self, token_id: int, logprob: float) -> dict[str, Any]:
        text = self._service.token_text(token_id)
        half = UNFINISHED in self._service.tokenizer.decode([token_id], skip_special_tokens=False)
        return {"token": text, "logprob": logprob, "bytes": None if half else list(text.encode())}


def _delta(index: int, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
