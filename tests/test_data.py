"""Finding and fetching data: a server on the loopback interface stands in for the internet."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import os
import socket
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from seqbench import data
from seqbench.api import DataFile, Dataset
from seqbench.errors import DataError

CONTENT = b"To be, or not to be\n" * 500
SIZE = len(CONTENT)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """What the server does follows from the address that is asked for."""

    def do_GET(self):
        self.server.asked.append(self.path)
        first = self.server.asked.count(self.path) == 1
        if self.path == "/missing" or (self.path == "/flaky" and first):
            self.send_error(404 if self.path == "/missing" else 503)
            return
        body = {"/wrong": CONTENT.swapcase(), "/large": CONTENT * 200}.get(self.path, CONTENT)
        self.send_response(200)
        if self.path != "/large":  # which does not say how large it is
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):  # the client may hang up
            self.wfile.write(body[: len(body) // 2] if self.path == "/truncated" else body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A cache of its own for each test, and no waiting between attempts."""
    for name in (data.FOLDER, data.OFFLINE, "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(data.CACHE, str(tmp_path / "cache"))
    monkeypatch.setattr(data, "RETRIES", 0)
    return tmp_path


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args):
        raise AssertionError(f"the network was touched: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def declared(path="play/hamlet.txt", url="http://127.0.0.1:9/nothing-listens-here", sha256=SHA256, size=SIZE):
    return Dataset("hamlet", "a test", files=(DataFile(path, url, sha256, size),))


def served(server, name, **changes):
    return declared(url=f"http://127.0.0.1:{server.server_port}/{name}", **changes)


def put(folder: Path, content: bytes = CONTENT) -> Path:
    path = folder / "play" / "hamlet.txt"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


# --- locate ---


def test_an_embedded_dataset_needs_nothing(no_network):
    files = data.locate(Dataset("embedded", "made up"))
    with pytest.raises(DataError, match="no file 'x'"):
        files.path("x")


def test_the_folder_given_comes_before_the_environment_before_the_cache(place, monkeypatch, no_network):
    cached, from_environment, given = (put(place / name) for name in ("cache/data", "environment", "given"))
    assert data.locate(declared()).path("play/hamlet.txt") == cached
    monkeypatch.setenv(data.FOLDER, str(place / "environment"))
    assert data.locate(declared()).path("play/hamlet.txt") == from_environment
    assert data.locate(declared(), place / "given").path("play/hamlet.txt") == given


def test_a_folder_that_lacks_the_file_is_passed_over(place, monkeypatch, no_network):
    cached = put(place / "cache/data")
    (place / "empty").mkdir()
    monkeypatch.setenv(data.FOLDER, str(place / "empty"))
    assert data.locate(declared()).path("play/hamlet.txt") == cached


def test_missing_says_url_sha256_place_and_command(place, no_network):
    with pytest.raises(DataError) as error:
        data.locate(declared())
    message = str(error.value)
    assert "http://127.0.0.1:9/nothing-listens-here" in message
    assert SHA256 in message
    assert str(place / "cache" / "data" / "play" / "hamlet.txt") in message
    assert "seqbench data fetch hamlet" in message
    assert "\n" not in message


def test_a_file_with_other_content_is_refused_and_left_alone(place, no_network):
    path = put(place / "mine", CONTENT.swapcase())
    with pytest.raises(DataError, match=f"not the one expected.*{SHA256}"):
        data.locate(declared(), place / "mine")
    assert path.exists()


def test_a_damaged_file_is_not_passed_over_for_a_good_one_elsewhere(place, no_network):
    put(place / "cache/data")
    put(place / "mine", CONTENT.swapcase())
    with pytest.raises(DataError, match="not the one expected"):
        data.locate(declared(), place / "mine")


def test_a_file_of_another_size_is_refused(place, no_network):
    put(place / "mine", CONTENT[:-1])
    with pytest.raises(DataError, match="9999 bytes, expected 10000"):
        data.locate(declared(), place / "mine")


def test_a_folder_in_place_of_a_file(place, no_network):
    (place / "mine" / "play" / "hamlet.txt").mkdir(parents=True)
    with pytest.raises(DataError, match="not a regular file"):
        data.locate(declared(), place / "mine")


def test_a_dangling_link_in_place_of_a_file(place, no_network):
    (place / "mine" / "play").mkdir(parents=True)
    (place / "mine" / "play" / "hamlet.txt").symlink_to(place / "nowhere")
    with pytest.raises(DataError, match="not a regular file"):
        data.locate(declared(), place / "mine")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no FIFOs")
def test_a_fifo_in_place_of_a_file_does_not_hang(place, no_network):
    (place / "mine" / "play").mkdir(parents=True)
    os.mkfifo(place / "mine" / "play" / "hamlet.txt")
    with pytest.raises(DataError, match="not a regular file"):
        data.locate(declared(), place / "mine")


def test_an_unreadable_file(place, monkeypatch, no_network):
    put(place / "mine")

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # chmod would not stop root, who runs many a CI
    with pytest.raises(DataError, match=r"cannot be read \(Permission denied\)"):
        data.locate(declared(), place / "mine")


def test_a_folder_that_does_not_exist(place, monkeypatch, no_network):
    with pytest.raises(DataError, match=r"nowhere \(--data-dir\) is not there"):
        data.locate(declared(), place / "nowhere")
    monkeypatch.setenv(data.FOLDER, str(place / "nowhere"))
    with pytest.raises(DataError, match=r"nowhere \(SEQBENCH_DATA\) is not there"):
        data.locate(declared())


def test_a_file_in_place_of_the_folder(place, no_network):
    (place / "file").touch()
    with pytest.raises(DataError, match="is not a folder"):
        data.locate(declared(), place / "file")


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../up", "a/../../up", "", "C:/x", "C:x", "a\\..\\..\\x", "\\\\host\\x", "a\nb", "a\0b"]
)
@pytest.mark.parametrize("question", [data.locate, data.fetch, data.obtain])
def test_a_path_that_leaves_the_folder_is_refused(path, question, no_network):
    with pytest.raises(DataError, match="leaves the data folder"):
        question(declared(path=path))


@pytest.mark.parametrize("sha256", ["", "md5:abc", SHA256.upper(), SHA256[:-1], SHA256 + "\n"])
def test_a_sha256_that_is_none_is_refused(sha256, no_network):
    with pytest.raises(DataError, match="64 lower-case hexadecimal digits"):
        data.locate(declared(sha256=sha256))


# --- status ---


def test_status(place, no_network):
    assert data.status(Dataset("embedded", "made up")) == data.Status("embedded")
    assert data.status(declared()) == data.Status("missing", note="1 of 1 files")
    path = put(place / "cache/data")
    assert data.status(declared()) == data.Status("present", folder=path.parent)
    path.write_bytes(CONTENT.swapcase())
    assert data.status(declared()).state == "damaged"
    assert "not the one expected" in data.status(declared()).note


# --- fetch and obtain ---


def test_fetch_downloads_once_to_the_cache(server, place):
    path = data.fetch(served(server, "good"), progress=False).path("play/hamlet.txt")
    assert path == place / "cache" / "data" / "play" / "hamlet.txt"
    assert path.read_bytes() == CONTENT
    assert data.fetch(served(server, "good"), progress=False).path("play/hamlet.txt") == path
    assert data.locate(served(server, "good")).path("play/hamlet.txt") == path
    assert server.asked == ["/good"]
    assert leftovers(place) == [path]


def test_fetch_makes_the_folder_given_and_downloads_there(server, place):
    path = data.fetch(served(server, "good"), place / "new" / "folder", progress=False).path("play/hamlet.txt")
    assert path == place / "new" / "folder" / "play" / "hamlet.txt"


def test_fetch_takes_what_another_place_has(server, place, monkeypatch):
    path = put(place / "environment")
    monkeypatch.setenv(data.FOLDER, str(place / "environment"))
    assert data.fetch(served(server, "good"), progress=False).path("play/hamlet.txt") == path
    assert server.asked == []


def test_fetch_says_what_it_does(server, capsys):
    data.fetch(served(server, "good"))
    shown = capsys.readouterr()
    assert shown.out == ""
    assert f"Downloading http://127.0.0.1:{server.server_port}/good (10,000 bytes) to " in shown.err


def test_fetch_moves_a_bar_on_a_terminal(server, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes stderr for a terminal
    assert data.fetch(served(server, "good")).path("play/hamlet.txt").read_bytes() == CONTENT


def test_fetch_tries_again(server, monkeypatch):
    monkeypatch.setattr(data, "RETRIES", 1)
    data.fetch(served(server, "flaky"), progress=False)
    assert server.asked == ["/flaky", "/flaky"]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("wrong", "SHA256 hash"),
        ("truncated", "IncompleteRead"),
        ("large", "more than the 10000 bytes"),
        ("missing", "404"),
    ],
)
def test_fetch_that_fails_says_why_and_leaves_nothing(name, why, server, place):
    with pytest.raises(DataError) as error:
        data.fetch(served(server, name), progress=False)
    message = str(error.value)
    assert why in message
    assert SHA256 in message
    assert str(place / "cache" / "data" / "play" / "hamlet.txt") in message
    assert "\n" not in message
    assert leftovers(place) == []


def test_fetch_without_a_server(place):
    with pytest.raises(DataError, match=r"could not be downloaded.*seqbench data fetch hamlet"):
        data.fetch(declared(), progress=False)
    assert leftovers(place) == []


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "nonsense", ""])
def test_fetch_from_an_address_that_is_not_the_web(url, no_network):
    with pytest.raises(DataError, match="could not be downloaded"):
        data.fetch(declared(url=url), progress=False)


def test_fetch_replaces_a_damaged_file_in_the_cache(server, place):
    path = put(place / "cache/data", CONTENT.swapcase())
    data.fetch(served(server, "good"), progress=False)
    assert path.read_bytes() == CONTENT


def test_fetch_leaves_a_damaged_file_of_the_user_alone(server, place):
    path = put(place / "mine", b"my own notes")
    with pytest.raises(DataError, match="12 bytes, expected 10000"):
        data.fetch(served(server, "good"), place / "mine", progress=False)
    assert path.read_bytes() == b"my own notes"


def test_fetch_into_a_place_that_cannot_be(server, place):
    (place / "file").touch()
    with pytest.raises(DataError, match="cannot be made"):
        data.fetch(served(server, "good"), place / "file" / "folder", progress=False)


def test_fetch_of_several_files_keeps_the_order(server, place):
    one = served(server, "good")
    two = replace(one, files=(one.files[0], replace(one.files[0], path="play/second.txt")))
    assert list(data.fetch(two, progress=False).paths) == ["play/hamlet.txt", "play/second.txt"]
    assert data.status(two).state == "present"


def test_offline_forbids(server, monkeypatch, no_network):
    monkeypatch.setenv(data.OFFLINE, "1")
    for question in (data.fetch, data.obtain):
        with pytest.raises(DataError, match=f"SEQBENCH_OFFLINE forbids downloads.*{SHA256}"):
            question(served(server, "good"))


def test_obtain_downloads_with_a_visible_line(server, capsys):
    assert data.obtain(served(server, "good")).path("play/hamlet.txt").read_bytes() == CONTENT
    assert "Downloading" in capsys.readouterr().err


def test_what_is_here_needs_no_network(place, no_network, capsys):
    path = put(place / "cache/data")
    for question in (data.locate, data.obtain, data.fetch):
        assert question(declared()).path("play/hamlet.txt") == path
    assert capsys.readouterr() == ("", "")


def test_the_cache_is_the_platforms_unless_told(monkeypatch, place):
    assert data.data_folder() == place / "cache" / "data"
    monkeypatch.delenv(data.CACHE)
    assert data.data_folder().parts[-1] == "data"
    assert "seqbench" in data.data_folder().parts


def test_importing_data_loads_nothing_heavy():
    import subprocess

    heavy = ("numpy", "torch", "pooch", "requests", "rich", "platformdirs")
    code = f"import sys, seqbench.data; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
