"""infini-eval view: who may ask the server, what it answers, and the folder that it writes."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from infini_eval.cli.main import main
from infini_eval.cli.view import open_server
from infini_eval.errors import ConfigError
from infini_eval.reports.site import Site
from infini_eval.testing.fake_runs import FakeRun, write_fake_run
from support.limits import PROCESS_S

SMALL = FakeRun(depths=(0, 50), per_cell=2)


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    write_fake_run(tmp_path / "a", SMALL)
    with open_server(Site([tmp_path]), 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def asked(port: int, path: str, host: str | None = None) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PROCESS_S)
    connection.request("GET", path, headers={"Host": host or f"127.0.0.1:{port}"})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


def test_it_listens_on_this_machine_only_and_sends_its_policy(port):
    answer, body = asked(port, "/")
    assert answer.status == 200 and b'id="files"' in body
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'") and "frame-ancestors 'none'" in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    answer, body = asked(port, "/runs/a/samples.json")
    assert answer.headers["Content-Type"].startswith("application/json") and json.loads(body)["total"] == 4


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "localhost.evil.example"])
def test_a_page_that_calls_this_machine_by_its_own_name_gets_nothing(port, host):
    answer, body = asked(port, "/runs/a/run.json", host)
    assert (answer.status, b"a" in body and b"{" in body) == (421, False)


@pytest.mark.parametrize(
    "path",
    [
        "/web/../page.py",
        "/web/%2e%2e/page.py",
        "/../../etc/passwd",
        "/web//etc/passwd",
        "/manifest.json",
        "/runs/a/%00",
    ],
)
def test_no_file_is_read_by_a_name_that_was_asked_for(port, path):
    assert asked(port, path)[0].status == 404


def test_a_port_that_is_taken_is_one_message(port, tmp_path):
    with pytest.raises(ConfigError, match=f"port {port} of 127.0.0.1 cannot be used"):
        open_server(Site([tmp_path]), port)


def test_a_bundle_and_bad_words(tmp_path, capsys):
    write_fake_run(tmp_path / "runs/a", SMALL)
    assert main(["view", str(tmp_path / "runs"), "--bundle", str(tmp_path / "site")]) == 0
    assert "1 run(s) in" in capsys.readouterr().out
    assert (tmp_path / "site/index.html").is_file()
    with pytest.raises(SystemExit, match="2"):
        main(["view", str(tmp_path / "runs"), "--port", "99999"])
    assert "'99999' is not a whole number of at least 0 and at most 65,535" in capsys.readouterr().err
    assert main(["view", str(tmp_path / "nowhere")]) == 2
    assert "no such folder" in capsys.readouterr().err
