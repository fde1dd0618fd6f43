# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""A server of the test's own in place of those that publish files, and an empty cache."""

from __future__ import annotations

import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ggdr.torch_utils import downloads

CONTENT = bytes(range(256)) * 2000
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


class Server(ThreadingHTTPServer):
    """Answers each request as the next of `answers` says, the last one again and again; notes what was asked for."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[str] = []
        self.answers = [send()]
        self.sent, self.go_on = threading.Event(), threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/net.pth"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        number = min(len(self.server.requests), len(self.server.answers)) - 1
        self.server.answers[number](self)

    def log_message(self, *args):
        pass


def send(content: bytes = CONTENT, *, length: int | None = len(CONTENT)):
    """An answer with this content, whatever length it promises."""

    def answer(handler):
        handler.send_response(200)
        if length is not None:
            handler.send_header("Content-Length", str(length))
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def refuse(code: int):
    return lambda handler: handler.send_error(code)


def send_half(handler):
    """Half of the content, and the rest when the test says so."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(CONTENT)))
    handler.end_headers()
    handler.wfile.write(CONTENT[: len(CONTENT) // 2])
    handler.wfile.flush()
    handler.server.sent.set()
    handler.server.go_on.wait(30)
    with suppress(OSError):  # nobody may wait for it any more
        handler.wfile.write(CONTENT[len(CONTENT) // 2 :])


def send_on(handler):
    """The content again and again, as long as somebody listens."""
    handler.send_response(200)
    handler.end_headers()
    with suppress(OSError):
        for _ in range(100):
            handler.wfile.write(CONTENT)
        handler.server.sent.set()


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.go_on.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def cache(monkeypatch, tmp_path) -> Path:
    """An empty cache, no pauses, and no proxy in between."""
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("GGDR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(downloads, "PAUSES", (0.0, 0.0))
    return tmp_path / "cache" / "weights"
