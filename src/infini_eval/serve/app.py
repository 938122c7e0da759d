"""The web side of the server: who may ask, how much, and how requests wait for their answers. OpenAI's paths and errors."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from infini_eval._version import __version__
from infini_eval.serve.protocol import ApiError, ChatRequest, CompletionRequest, error_body, first_problem
from infini_eval.serve.replies import ChatReplies, CompletionReplies, Replies
from infini_eval.serve.scheduler import Answer, Closed, Failure, Job, Part, QueueFull, Report
from infini_eval.serve.service import Service

logger = logging.getLogger(__name__)
POLL_S = 0.25  # how often is looked whether the asker is still there
BODY_S = 60.0  # for a request to arrive
AGAIN_S = 1  # when a request that was not queued may come again
LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})


def make_app(service: Service) -> FastAPI:
    """The application: /v1/completions, /v1/chat/completions, /v1/models, /health."""
    app = FastAPI(title="infini-eval serve", version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Gate, service=service)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _our_mistake)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "waiting": service.scheduler.waiting}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(service)]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        service.check_model(name)
        return _model(service)

    @app.post("/v1/completions")
    async def completions(asked: CompletionRequest, request: Request) -> Any:
        service.check_model(asked.model)
        prompts = await asyncio.to_thread(service.prompts, asked)
        return await _answered(service, asked, request, prompts, CompletionReplies(service, prompts, asked))

    @app.post("/v1/chat/completions")
    async def chat(asked: ChatRequest, request: Request) -> Any:
        service.check_model(asked.model)
        prompts = [await asyncio.to_thread(service.chat_prompt, asked)]
        return await _answered(service, asked, request, prompts, ChatReplies(service, prompts, asked))

    return app


def _model(service: Service) -> dict[str, Any]:
    named = {"id": service.name, "object": "model", "created": service.started, "owned_by": "infini-eval"}
    return named | {"max_model_len": service.most_tokens}


async def _answered(
    service: Service,
    asked: CompletionRequest | ChatRequest,
    request: Request,
    prompts: Sequence[np.ndarray],
    replies: Replies,
) -> Any:
    """The reply to a request, whole or streamed."""
    waiting = Waiting(service, request)
    await waiting.submit(asked, prompts)
    if asked.stream:
        events = _events(waiting, replies, usage=asked.wants_usage)
        return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
    async with contextlib.aclosing(waiting.reports()) as reports:
        answers = {index: report async for index, report in reports if isinstance(report, Answer)}
    return JSONResponse(await asyncio.to_thread(replies.whole, answers))


async def _events(waiting: Waiting, replies: Replies, *, usage: bool) -> AsyncIterator[str]:
    """A streamed reply as server-sent events; an error on the way is one of them, as the status has been sent."""
    answers: dict[int, Answer] = {}
    try:
        for chunk in replies.opening():
            yield _event(chunk)
        async with contextlib.aclosing(waiting.reports()) as reports:
            async for index, report in reports:
                if isinstance(report, Answer):
                    answers[index] = report
                for chunk in replies.chunks(index, report):
                    yield _event(chunk)
        if usage:
            yield _event(replies.usage_chunk(answers))
    except ApiError as error:
        yield _event(error_body(error.status_code, str(error.detail), error.param, error.code))
        return
    finally:
        waiting.cancel()
    yield "data: [DONE]\n\n"


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value)}\n\n"


class Waiting:
    """A request that waits for the reports of its jobs; it gives up with the one who asked, and in time."""

    def __init__(self, service: Service, request: Request) -> None:
        self._service, self._request = service, request
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.time() + service.settings.request_timeout_s
        self._queue: asyncio.Queue[tuple[Job, Report]] = asyncio.Queue()
        self._jobs: list[Job] = []

    async def submit(self, asked: CompletionRequest | ChatRequest, prompts: Sequence[np.ndarray]) -> None:
        """Queue the jobs; ApiError 400, 429 or 503 where they cannot be."""
        self._jobs = self._service.jobs(asked, prompts, self._report)
        try:
            await asyncio.to_thread(self._service.scheduler.submit, self._jobs)
        except QueueFull:
            raise ApiError(
                429, f"{self._service.settings.max_queue} prompts wait already; come again", code="queue_full"
            ) from None
        except Closed:
            raise ApiError(503, "the server is stopping", code="server_stopping") from None

    async def reports(self) -> AsyncGenerator[tuple[int, Part | Answer], None]:
        """What is reported of each choice, by index, until all have ended; ApiError for one that failed."""
        index_of = {job: index for index, job in enumerate(self._jobs)}
        try:
            while index_of:
                job, report = await self._next()
                if isinstance(report, Failure):
                    raise ApiError(report.status, report.message, code=report.code)
                yield index_of[job], report
                if isinstance(report, Answer):
                    del index_of[job]
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Nobody waits any more: what is not computed yet need not be."""
        for job in self._jobs:
            job.cancelled = True

    async def _next(self) -> tuple[Job, Report]:
        while (left := self._deadline - self._loop.time()) > 0:
            with contextlib.suppress(TimeoutError):
                return await asyncio.wait_for(self._queue.get(), min(POLL_S, left))
            if await self._request.is_disconnected():
                raise ApiError(499, "the client has gone", code="client_gone")
        seconds = self._service.settings.request_timeout_s
        raise ApiError(503, f"no answer within {seconds:g} s (--request-timeout)", code="timeout")

    def _report(self, job: Job, report: Report) -> None:
        """From the engine's thread; the loop is closed where the server has ended."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._queue.put_nowait, (job, report))


class Gate:
    """Before anything of a request is read: the name it is sent to, its key, and how large it may be."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service
        self._most_bytes = service.settings.max_body_mb * 10**6

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer with what is wrong about it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        problem = self._problem(headers, scope["path"])
        if problem is not None:
            await _reply(problem)(scope, receive, send)
            return
        await self._app(scope, self._bounded(receive), send)

    def _problem(self, headers: Headers, path: str) -> ApiError | None:
        host = headers.get("host", "")
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if self._service.settings.on_loopback and self._service.key is None and name not in LOOPBACK:
            # a page of another site that calls this machine by a name of its own
            return ApiError(421, "asked for by another name than 127.0.0.1 or localhost", code="wrong_host")
        if self._service.key is not None and path != "/health" and not self._has_key(headers):
            return ApiError(401, "no valid key: send Authorization: Bearer KEY", code="invalid_api_key")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 15 or int(length) > self._most_bytes:
            return self._too_large()
        return None

    def _has_key(self, headers: Headers) -> bool:
        kind, _, given = headers.get("authorization", "").partition(" ")
        expected = (self._service.key or "").encode()
        return hmac.compare_digest(given.strip().encode(), expected) and kind.lower() == "bearer"

    def _bounded(self, receive: Receive) -> Receive:
        """`receive` that ends a body which is longer than announced, or comes too slowly."""
        read, whole = 0, False

        async def bounded() -> Message:
            nonlocal read, whole
            if whole:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), BODY_S)
            except TimeoutError:
                raise ApiError(408, f"the request did not arrive within {BODY_S:g} s", code="timeout") from None
            read += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if read > self._most_bytes:
                raise self._too_large()
            return message

        return bounded

    def _too_large(self) -> ApiError:
        megabytes = self._service.settings.max_body_mb
        return ApiError(413, f"a request may have {megabytes} MB (--max-body-mb)", code="request_too_large")


def _reply(error: ApiError) -> JSONResponse:
    headers = {401: {"WWW-Authenticate": "Bearer"}, 413: {"Connection": "close"}, 429: {"Retry-After": str(AGAIN_S)}}
    body = error_body(error.status_code, str(error.detail), error.param, error.code)
    return JSONResponse(body, error.status_code, headers.get(error.status_code))


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if isinstance(error, ApiError):
        return _reply(error)
    messages = {404: f"{request.url.path} is not here", 405: f"{request.method} is not for {request.url.path}"}
    return _reply(ApiError(error.status_code, messages.get(error.status_code, str(error.detail))))


async def _our_mistake(request: Request, error: Exception) -> JSONResponse:
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return _reply(ApiError(500, f"a mistake of the server: {type(error).__name__}; its log says more"))


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return _reply(ApiError(400, f"the body is not JSON: {first['ctx']['error']}"))
    if first["loc"] == ("body",) and first["type"] in ("model_attributes_type", "missing"):
        return _reply(ApiError(400, "the body is no JSON object (Content-Type: application/json)"))
    return _reply(first_problem(error.errors()))
