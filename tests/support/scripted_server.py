"""A server on loopback that speaks OpenAI's and Gemini's protocols and misbehaves on request, for tests."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY_SENTENCE = re.compile(r"The pass key is (\d+)")


@dataclass(frozen=True)
class ScriptedStep:
    """How one answer differs from a good one.

    status: an error instead. headers: of that error. slow_s: first wait. cut_off: close in the middle of the body.
    malformed: a body that is not JSON, or not an answer. read: tokens that it claims to have read. text: the answer.
    finish: its finish reason. message, code: of the error. reasoning: tokens spent on thinking.
    drip_s: seconds between two bytes of the body.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    slow_s: float = 0.0
    cut_off: bool = False
    malformed: str | None = None
    read: int | None = None
    text: str | None = None
    finish: str = "stop"
    message: str = "as scripted"
    code: str | None = None
    reasoning: int | None = None
    drip_s: float = 0.0


GOOD = ScriptedStep()


class ScriptedServer:
    """Answers questions by number of arrival: `script[n]`, then `otherwise`. Use it as a context manager.

    `count` counts a prompt's tokens. `asked` lists (path, headers, body) of every question, `most_at_once` how many
    were in hand together. Lists of models and token counts are not part of the script.
    """

    def __init__(
        self,
        script: Sequence[ScriptedStep] = (),
        otherwise: ScriptedStep = GOOD,
        count: Callable[[str], int] = lambda text: len(text) // 4,
    ) -> None:
        self.script, self.otherwise, self.count = list(script), otherwise, count
        self.asked: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.in_hand = self.most_at_once = 0
        self.lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def address(self) -> str:
        """http://127.0.0.1:PORT"""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> ScriptedServer:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @contextlib.contextmanager
    def one_more(self) -> Iterator[None]:
        """Count a question as being in hand."""
        with self.lock:
            self.in_hand += 1
            self.most_at_once = max(self.most_at_once, self.in_hand)
        try:
            yield
        finally:
            with self.lock:
                self.in_hand -= 1

    def next_step(self, path: str, headers: dict[str, str], body: dict[str, Any]) -> ScriptedStep:
        """Note a question and say how to answer it."""
        with self.lock:
            self.asked.append((path, headers, body))
            number = len(self.asked) - 1
        return self.script[number] if number < len(self.script) else self.otherwise


class _Handler(BaseHTTPRequestHandler):
    """Serves one connection; `_handler` binds it to its server."""

    protocol_version = "HTTP/1.1"
    scripted: ScriptedServer

    def log_message(self, *arguments: object) -> None:
        """Nothing is printed."""

    def do_GET(self) -> None:
        model = {"id": "scripted", "object": "model", "created": 0, "owned_by": "us"}
        listing = {"object": "list", "data": [model]}
        self._send(200, listing if self.path.endswith("/models") else {"name": "models/x", "inputTokenLimit": 4096})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if ":countTokens" in self.path:
            self._send(200, {"totalTokens": self.scripted.count(prompt_of(body))})
            return
        step = self.scripted.next_step(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
        with self.scripted.one_more():
            time.sleep(step.slow_s)
            self._answer(step, body)

    def _answer(self, step: ScriptedStep, body: dict[str, Any]) -> None:
        if step.malformed is not None:
            self._send(200, step.malformed, step.headers)
        elif step.status != 200:
            error = {
                "message": step.message,
                "code": step.code or step.status,
                "status": "SCRIPTED",
                "type": "scripted",
            }
            self._send(step.status, {"error": error}, step.headers)
        else:
            reply = answer(self.path, body, step, self.scripted.count)
            self._send(200, reply, cut_off=step.cut_off, drip_s=step.drip_s)

    def _send(
        self,
        status: int,
        content: Any,
        headers: dict[str, str] | None = None,
        *,
        cut_off: bool = False,
        drip_s: float = 0,
    ) -> None:
        data = (content if isinstance(content, str) else json.dumps(content)).encode()
        all_headers = {"content-type": "application/json", "content-length": str(len(data)), **(headers or {})}
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # some tests have the client give up
            self.send_response(status)
            for name, value in all_headers.items():
                self.send_header(name, value)
            self.end_headers()
            if drip_s:
                for place in range(len(data)):
                    self.wfile.write(data[place : place + 1])
                    time.sleep(drip_s)
            else:
                self.wfile.write(data[: len(data) // 2] if cut_off else data)
        self.close_connection = self.close_connection or cut_off


def _handler(server: ScriptedServer) -> type[_Handler]:
    return type("Handler", (_Handler,), {"scripted": server})


def prompt_of(body: dict[str, Any]) -> str:
    """The prompt in a request of either protocol."""
    if "prompt" in body:
        return body["prompt"]
    if "messages" in body:
        return body["messages"][-1]["content"]
    return "".join(part["text"] for content in body["contents"] for part in content["parts"])


def answer(path: str, body: dict[str, Any], step: ScriptedStep, count: Callable[[str], int]) -> dict[str, Any]:
    """A reply: the pass key that stands in the prompt, unless the step says otherwise."""
    prompt = prompt_of(body)
    found = KEY_SENTENCE.findall(prompt)
    text = step.text if step.text is not None else f" {found[-1] if found else 'unknown'}."
    read = count(prompt) if step.read is None else step.read
    if "generateContent" in path:
        usage = {"promptTokenCount": read, "candidatesTokenCount": 4, "thoughtsTokenCount": step.reasoning}
        candidate = {"content": {"parts": [{"text": text}] if text else []}, "finishReason": step.finish.upper()}
        return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "scripted-001"}
    usage = {"prompt_tokens": read, "completion_tokens": 4, "total_tokens": read + 4}
    if step.reasoning:
        usage["completion_tokens_details"] = {"reasoning_tokens": step.reasoning}  # type: ignore[assignment]
    said = {"message": {"role": "assistant", "content": text}} if "messages" in body else {"text": text}
    choice = {"index": 0, "finish_reason": step.finish, **said}
    return {
        "id": "1",
        "object": "completion",
        "created": 0,
        "model": "scripted-001",
        "choices": [choice],
        "usage": usage,
    }
