# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Published files: caches, downloads and all that may go wrong with them, on a server of the test's own."""

from __future__ import annotations

import dataclasses
import hashlib
import socket
import time
from pathlib import Path

import pytest

from ggdr.torch_utils import downloads
from ggdr.torch_utils.downloads import WeightsError, WeightsFile, find_hashed, find_weights, sha256_of
from tests.conftest import python
from tests.download_server import CONTENT, cache, refuse, send, send_half, send_on, server  # noqa: F401

pytestmark = pytest.mark.usefixtures("cache")


def published(*urls: str, known: bool = True) -> WeightsFile:
    """`known`: whether its SHA-256 and size are."""
    sha256, size = (hashlib.sha256(CONTENT).hexdigest(), len(CONTENT)) if known else (None, None)
    return WeightsFile(
        "net.pth", urls, sha256, size, "the tested network", "say --net FILE", aliases=("other-net.pth",)
    )


def in_process(file: WeightsFile):
    code = f"from ggdr.torch_utils.downloads import WeightsFile, find_weights\nprint('found', find_weights({file!r}))"
    return python("-c", code)


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


# Downloads.


def test_a_download_is_kept_and_not_repeated(server, cache):  # noqa: F811
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
def test_what_may_pass_is_tried_again(server, cache, first):  # noqa: F811
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
def test_what_does_not_pass_ends_in_a_message_and_leaves_no_file(server, cache, answer, times, reason):  # noqa: F811
    server.answers = [answer]
    with pytest.raises(WeightsError, match=reason):
        find_weights(published(server.url))
    assert len(server.requests) == times
    assert files_in(cache) == set()


def test_a_download_that_does_not_end_is_cut_off(server, cache):  # noqa: F811
    server.answers = [send_on, send()]
    assert find_weights(published(server.url)).read_bytes() == CONTENT
    assert not server.sent.is_set()


def test_a_second_address_helps_where_the_first_has_nothing(server):  # noqa: F811
    server.answers = [refuse(404), send()]
    assert find_weights(published(server.url + "?first", server.url + "?second")).read_bytes() == CONTENT
    assert server.requests == ["/net.pth?first", "/net.pth?second"]


def test_a_silent_server_is_given_up(server, monkeypatch):  # noqa: F811
    monkeypatch.setattr(downloads, "TIMEOUT", 0.05)
    server.answers = [send_half]
    with pytest.raises(WeightsError, match="timed out"):
        find_weights(published(server.url))
    assert len(server.requests) == 3


def test_the_proxy_of_the_environment_is_asked(server, monkeypatch):  # noqa: F811
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    assert find_weights(published("http://weights.invalid/net.pth")).read_bytes() == CONTENT
    assert server.requests == ["http://weights.invalid/net.pth"]


def test_without_network_the_message_says_how_to_get_the_file(cache):  # noqa: F811
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


def test_two_processes_download_once(server, cache):  # noqa: F811
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


def test_a_killed_download_leaves_nothing_that_looks_whole(server, cache):  # noqa: F811
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


def test_a_damaged_file_in_the_cache_is_named_and_replaced(server, cache, capsys):  # noqa: F811
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


def test_a_damaged_file_of_others_is_left_alone(server, cache, tmp_path):  # noqa: F811
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


def test_downloads_can_be_switched_off(server):  # noqa: F811
    with pytest.raises(WeightsError, match="switched off"):
        find_weights(published(server.url), download=False)
    assert server.requests == []


def test_a_cache_that_cannot_be_written_is_named(server, cache):  # noqa: F811
    cache.parent.write_text("a file where the folder should be")
    with pytest.raises(WeightsError, match=f"{cache / 'net.pth'}: (Not a directory|File exists)"):
        find_weights(published(server.url))


def test_without_a_home_folder_the_message_names_the_variable(monkeypatch):
    def no_home(content):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(downloads, "cache_folder", no_home)
    with pytest.raises(WeightsError, match="home directory.*GGDR_CACHE.*--net FILE"):
        find_weights(published())


@pytest.mark.parametrize("known", [True, False])
def test_the_digest_comes_with_the_file_which_is_read_once(server, cache, tmp_path, monkeypatch, known):  # noqa: F811
    hashed = []
    monkeypatch.setattr(downloads, "sha256_of", lambda path: hashed.append(path) or sha256_of(path))
    file, digest = published(server.url, known=known), hashlib.sha256(CONTENT).hexdigest()
    assert find_hashed(file) == (cache / "net.pth", digest) and hashed == []  # a download is hashed as it comes
    assert find_hashed(file) == (cache / "net.pth", digest) and hashed == [cache / "net.pth"]
    (tmp_path / "mine").write_bytes(b"mine")
    assert find_hashed(file, tmp_path / "mine") == (tmp_path / "mine", hashlib.sha256(b"mine").hexdigest())
    assert len(hashed) == 2


# Files whose SHA-256 nobody knows.


def test_the_first_file_is_trusted_and_its_digest_kept(server, cache):  # noqa: F811
    file = published(server.url, known=False)
    assert find_weights(file) == find_weights(file) == cache / "net.pth"
    assert len(server.requests) == 1
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert (cache / "net.pth.sha256").read_text() == f"{digest}  net.pth\n"


def test_a_file_that_was_put_into_the_cache_is_trusted(cache, capsys):  # noqa: F811
    cache.mkdir(parents=True)
    (cache / "net.pth").write_bytes(b"mine")
    assert find_weights(published(known=False), download=False).read_bytes() == b"mine"
    assert hashlib.sha256(b"mine").hexdigest() in capsys.readouterr().err


def test_another_file_in_its_place_is_refused(server, cache):  # noqa: F811
    file = published(server.url, known=False)
    find_weights(file)
    (cache / "net.pth").write_bytes(CONTENT[::-1])
    with pytest.raises(WeightsError, match="another file than the one that was used first"):
        find_weights(file)
    assert (cache / "net.pth").read_bytes() == CONTENT[::-1] and len(server.requests) == 1


def test_another_file_from_the_server_is_refused(server, cache):  # noqa: F811
    file = published(server.url, known=False)
    find_weights(file).unlink()
    server.answers = [send(CONTENT[::-1])]
    with pytest.raises(WeightsError, match="another file came"):
        find_weights(file)
    assert not (cache / "net.pth").exists()


@pytest.mark.parametrize("answer", [send(CONTENT[:1000]), send(b"", length=None)], ids=["broken off", "empty"])
def test_the_size_that_the_server_names_must_come(server, cache, answer):  # noqa: F811
    server.answers = [answer, send()]
    assert find_weights(published(server.url, known=False)).read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_a_file_without_a_size_is_cut_off_at_some_point(server, monkeypatch):  # noqa: F811
    monkeypatch.setattr(downloads, "MOST", 1000)
    server.answers = [send(length=None)]
    with pytest.raises(WeightsError, match="more bytes came instead of 1,000"):
        find_weights(published(server.url, known=False))


def test_the_licence_is_said_with_the_download(server, capsys):  # noqa: F811
    find_weights(dataclasses.replace(published(server.url), licence="for monks only"))
    assert "for monks only" in capsys.readouterr().err
