# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Published weights: caches, downloads and all that may go wrong with them, on a server of the test's own."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pickle
import socket
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from metrics import weights
from metrics.weights import LPIPS_VGG, WeightsError, WeightsFile, find_weights, load_weights, sha256_of
from tests.conftest import python

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


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path) -> Path:
    """An empty cache, no pauses, and no proxy in between."""
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("GGDR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(weights, "PAUSES", (0.0, 0.0))
    return tmp_path / "cache" / "weights"


def published(*urls: str) -> WeightsFile:
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    return WeightsFile("net.pth", urls, sha256, len(CONTENT), "the tested network", "--net", aliases=("other-net.pth",))


def in_process(file: WeightsFile):
    code = f"from metrics.weights import WeightsFile, find_weights\nprint('found', find_weights({file!r}))"
    return python("-c", code)


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


# Downloads.


def test_a_download_is_kept_and_not_repeated(server, cache):
    file = published(server.url)
    assert find_weights(file) == find_weights(file) == cache / "net.pth"
    assert (cache / "net.pth").read_bytes() == CONTENT
    assert files_in(cache) == {"net.pth"}
    assert server.requests == ["/net.pth"]


@pytest.mark.parametrize(
    "first",
    [refuse(503), refuse(429), send(CONTENT[:1000]), send(CONTENT[:1000], length=None), send(CONTENT * 2, length=None)],
    ids=["busy", "too many requests", "broken off", "short", "long"],
)
def test_what_may_pass_is_tried_again(server, cache, first):
    server.answers = [first, send()]
    assert find_weights(published(server.url)).read_bytes() == CONTENT
    assert len(server.requests) == 2
    assert files_in(cache) == {"net.pth"}


@pytest.mark.parametrize(
    "answer, times, reason",
    [
        (refuse(503), 3, "HTTP 503"),
        (refuse(404), 1, "HTTP 404"),
        (send(CONTENT[:1000]), 3, r"1,000 bytes came instead of 512,000|connection broke"),
        (send(CONTENT * 2, length=None), 3, "more bytes came instead of 512,000"),
        (send(CONTENT[::-1]), 1, f"another file came, of SHA-256 {hashlib.sha256(CONTENT[::-1]).hexdigest()}"),
    ],
    ids=["busy", "gone", "broken off", "long", "another file"],
)
def test_what_does_not_pass_ends_in_a_message_and_leaves_no_file(server, cache, answer, times, reason):
    server.answers = [answer]
    with pytest.raises(WeightsError, match=reason):
        find_weights(published(server.url))
    assert len(server.requests) == times
    assert files_in(cache) == set()


def test_a_download_that_does_not_end_is_cut_off(server, cache):
    server.answers = [send_on, send()]
    assert find_weights(published(server.url)).read_bytes() == CONTENT
    assert not server.sent.is_set()


def test_a_second_address_helps_where_the_first_has_nothing(server):
    server.answers = [refuse(404), send()]
    assert find_weights(published(server.url + "?first", server.url + "?second")).read_bytes() == CONTENT
    assert server.requests == ["/net.pth?first", "/net.pth?second"]


def test_a_silent_server_is_given_up(server, monkeypatch):
    monkeypatch.setattr(weights, "TIMEOUT", 0.05)
    server.answers = [send_half]
    with pytest.raises(WeightsError, match="timed out"):
        find_weights(published(server.url))
    assert len(server.requests) == 3


def test_the_proxy_of_the_environment_is_asked(server, monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    assert find_weights(published("http://weights.invalid/net.pth")).read_bytes() == CONTENT
    assert server.requests == ["http://weights.invalid/net.pth"]


def test_without_network_the_message_says_how_to_get_the_file(cache):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        file = published(f"http://127.0.0.1:{closed.getsockname()[1]}/net.pth")
        with pytest.raises(WeightsError) as caught:
            find_weights(file)
    message = str(caught.value)
    for part in (file.what, file.name, file.sha256, "512,000 bytes", *file.urls, str(cache / "net.pth"), "--net FILE"):
        assert part in message
    for part in ("no connection", "refused", "GGDR_CACHE", "HTTPS_PROXY"):
        assert part in message


def test_two_processes_download_once(server, cache):
    server.answers = [send_half]
    first = in_process(published(server.url))
    assert server.sent.wait(60)
    second = in_process(published(server.url))
    for line in second.stdout:
        if "waiting for another process" in line:
            break
    server.go_on.set()
    for process in (first, second):
        assert f"found {cache / 'net.pth'}" in process.communicate(timeout=60)[0]
    assert (cache / "net.pth").read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_a_killed_download_leaves_nothing_that_looks_whole(server, cache):
    server.answers = [send_half, send()]
    process = in_process(published(server.url))
    assert server.sent.wait(60)
    while not list(cache.glob("*.partial")):
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert [name for name in files_in(cache) if not name.endswith(".partial")] == []
    assert find_weights(published(server.url)).read_bytes() == CONTENT
    assert files_in(cache) == {"net.pth"}


# Caches.


def test_a_damaged_file_in_the_cache_is_named_and_replaced(server, cache, capsys):
    cache.mkdir(parents=True)
    (cache / "net.pth").write_bytes(CONTENT[:-1])
    assert find_weights(published(server.url)).read_bytes() == CONTENT
    assert f"{cache / 'net.pth'} is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["net.pth", "other-net.pth"])
def test_a_file_that_others_fetched_is_used(tmp_path, name):
    hub = tmp_path / "torch" / "hub" / "checkpoints"
    hub.mkdir(parents=True)
    (hub / name).write_bytes(CONTENT)
    assert find_weights(published(), download=False) == hub / name


def test_a_damaged_file_of_others_is_left_alone(server, cache, tmp_path):
    hub = tmp_path / "torch" / "hub" / "checkpoints"
    hub.mkdir(parents=True)
    (hub / "net.pth").write_bytes(b"damaged")
    assert find_weights(published(server.url)) == cache / "net.pth"
    assert (hub / "net.pth").read_bytes() == b"damaged"


def test_a_file_that_is_given_may_have_any_content(tmp_path):
    path = tmp_path / "mine.pth"
    path.write_bytes(b"mine")
    assert find_weights(published(), path) == path
    assert sha256_of(path) == hashlib.sha256(b"mine").hexdigest()
    with pytest.raises(WeightsError, match=r"absent\.pth: no such file; expected the tested network \(net\.pth\)"):
        find_weights(published(), tmp_path / "absent.pth")


def test_downloads_can_be_switched_off(server):
    with pytest.raises(WeightsError, match="switched off"):
        find_weights(published(server.url), download=False)
    assert server.requests == []


def test_a_cache_that_cannot_be_written_is_named(server, cache):
    cache.parent.write_text("a file where the folder should be")
    with pytest.raises(WeightsError, match=f"{cache / 'net.pth'}: (Not a directory|File exists)"):
        find_weights(published(server.url))


def test_without_a_home_folder_the_message_names_the_variable(monkeypatch):
    def no_home(content):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(weights, "cache_folder", no_home)
    with pytest.raises(WeightsError, match="home directory.*GGDR_CACHE.*--net FILE"):
        find_weights(published())


def test_the_layers_of_lpips_are_those_of_its_package():
    spec = importlib.util.find_spec("lpips")
    if spec is None:
        pytest.skip("lpips is not installed")
    path = Path(spec.origin).parent / "weights" / "v0.1" / "vgg.pth"
    assert (sha256_of(path), path.stat().st_size) == (LPIPS_VGG.sha256, LPIPS_VGG.size)


# Content.

SHAPES = {"a.weight": (2, 3), "a.bias": (2,), "b.weight": (4,)}


def save(path: Path, **changes) -> Path:
    state = {name: torch.ones(shape) for name, shape in SHAPES.items()} | changes
    torch.save({name: tensor for name, tensor in state.items() if tensor is not None}, path)
    return path


def test_tensors_come_in_float32_and_in_the_order_asked_for(tmp_path):
    path = save(tmp_path / "x.pth", **{"a.weight": torch.ones(2, 3, dtype=torch.float16), "c.extra": torch.ones(1)})
    tensors = load_weights(path, dict(reversed(SHAPES.items())), what="a net", ignored=r"^c\.")
    assert list(tensors) == ["b.weight", "a.bias", "a.weight"]
    assert all(tensor.dtype == torch.float32 for tensor in tensors.values())


def test_a_file_with_other_tensors_is_refused_by_name(tmp_path):
    changes = {"a.bias": None, "b.weight": torch.ones(5), "c.extra": torch.ones(1)}
    with pytest.raises(WeightsError) as caught:
        load_weights(save(tmp_path / "x.pth", **changes), SHAPES, what="a net")
    assert str(caught.value).endswith(
        "x.pth: not a net; tensors missing: a.bias; unexpected: c.extra; of another shape: b.weight [5] instead of [4]"
    )


def test_of_many_wrong_tensors_a_few_are_named(tmp_path):
    path = save(tmp_path / "x.pth", **{f"extra{i}": torch.ones(1) for i in range(5)})
    with pytest.raises(WeightsError, match=r"unexpected: extra0, extra1, extra2, \.\.\. \(5 in all\)$"):
        load_weights(path, SHAPES, what="a net")


class Payload:
    def __reduce__(self):
        return os.mkdir, ("the-payload-ran",)


@pytest.mark.parametrize("kind", ["text", "empty", "pickle", "tensor", "nested", "absent"])
def test_a_file_that_is_no_state_dict_is_refused_and_not_run(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.pth"
    if kind == "text":
        path.write_text("<html>Sign in</html>")
    elif kind == "empty":
        path.touch()
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(Payload(), protocol=2))
    elif kind != "absent":
        torch.save(torch.ones(3) if kind == "tensor" else {"state": {"a": torch.ones(3)}}, path)
    with pytest.raises(WeightsError, match=r"x\.pth: not a .*expected a net"):
        load_weights(path, SHAPES, what="a net")
    assert not Path("the-payload-ran").exists()


def test_a_file_of_weights_is_described_in_full():
    for file in (weights.INCEPTION, weights.VGG16, weights.LPIPS_VGG):
        assert len(file.sha256) == 64 and file.size > 0 and file.option.startswith("--")
        assert file.sha256[:8] in file.name and all(url.startswith("https://") for url in file.urls)
