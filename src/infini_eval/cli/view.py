"""Open results in a browser: list of runs, heat maps, samples, diagnosis, comparisons, training; nothing leaves this machine.

  infini-eval view results
  infini-eval view results/quickstart --bundle site

Serves the pages on this machine only (127.0.0.1) until Ctrl-C; reloading the list reads runs that are new or have gone on.
--bundle writes them into a folder instead, for any web server.
"""

from __future__ import annotations

import argparse
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from infini_eval.cli.flags import add_failed_flag, add_flag
from infini_eval.errors import EXIT_OK, ConfigError

if TYPE_CHECKING:
    from infini_eval.reports.site import Site

HOST = "127.0.0.1"
PORT = 8765
_NAMES = {"127.0.0.1", "localhost"}
_KINDS = {".js": "text/javascript", ".css": "text/css", ".LICENSE": "text/plain"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "results", nargs="+", metavar="RESULTS", type=Path, help="run folders, or folders of run folders"
    )
    add_flag(parser, "--bundle", metavar="DIR", type=Path, help="write a folder for any web server, and end")
    add_flag(parser, "--port", type=int, default=PORT, metavar="N", help="port of 127.0.0.1; 0 takes a free one")
    add_failed_flag(parser)


def run(args: argparse.Namespace) -> int:
    """Serve the results until Ctrl-C, or write them into a folder."""
    from infini_eval.reports.site import Site

    if not 0 <= args.port <= 65535:
        raise ConfigError(f"--port {args.port}", valid="0 to 65535; 0 takes a free port")
    site = Site(args.results, failed_as_wrong=args.failed_as_wrong, said=_say)
    if args.bundle:
        count = site.write(args.bundle)
        print(f"{len(site.folders)} run(s) in {count} files: {args.bundle}/index.html")
        print(f"open it by a web server: python -m http.server --bind {HOST} --directory {args.bundle}")
        return EXIT_OK
    with open_server(site, args.port) as server:
        print(f"{len(site.folders)} run(s) at http://{HOST}:{server.server_port}/  (Ctrl-C ends)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print(file=sys.stderr)
    return EXIT_OK


def open_server(site: Site, port: int) -> ThreadingHTTPServer:
    """A server of the site on this machine's own address; ConfigError where the port is taken."""
    handler = type("Handler", (_Handler,), {"site": site, "lock": threading.Lock()})
    try:
        return ThreadingHTTPServer((HOST, port), handler)
    except OSError as error:
        raise ConfigError(
            f"port {port} of {HOST} cannot be used: {error.strerror}",
            next_step="another one: --port 0 takes a free port",
        ) from error


class _Handler(BaseHTTPRequestHandler):
    """Answers GET for the page, the application's files and the site's; asks nothing of the file system by a foreign name."""

    site: Site
    lock: threading.Lock
    server_version, sys_version, protocol_version = "infini_eval", "", "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer one request; a page of another site that asks by its own name for this machine gets nothing."""
        if (self.headers.get("Host") or "").rsplit(":", 1)[0] not in _NAMES:
            self._answer(HTTPStatus.MISDIRECTED_REQUEST, b"asked for by another name than 127.0.0.1\n", "text/plain")
            return
        body, kind = self._found(unquote(urlsplit(self.path).path))
        if body is None:
            self._answer(HTTPStatus.NOT_FOUND, b"not here\n", "text/plain")
        else:
            self._answer(HTTPStatus.OK, body, kind)

    def _found(self, path: str) -> tuple[bytes | None, str]:
        from infini_eval.reports.page import WEB, web_files
        from infini_eval.reports.payload import as_json

        if path in ("/", "/index.html"):
            with self.lock:
                self.site.refresh()
                return self.site.page().encode(), "text/html"
        name = path.removeprefix("/web/")
        if path.startswith("/web/") and name in web_files():
            return (WEB / name).read_bytes(), _KINDS[Path(name).suffix]
        with self.lock:
            content = self.site.content(path.removeprefix("/"))
        return (None if content is None else as_json(content)), "application/json"

    def _answer(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        from infini_eval.reports.page import served_policy

        self.send_response(status)
        for name, value in (
            ("Content-Type", f"{kind}; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Content-Security-Policy", f"{served_policy()}; frame-ancestors 'none'"),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Cache-Control", "no-store"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are no news."""


def _say(line: str) -> None:
    """What is being read, in one line of the terminal; nothing where standard error is none."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
