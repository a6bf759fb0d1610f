"""Downloads, from a server on this machine: whole or not at all, resumed, one process at a time, errors that help."""

import contextlib
import hashlib
import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.weights import download as module
from models.weights.download import DownloadError, cache_dir, download

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves `content` at every path, honours Range, and can be told to break off or to refuse."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.etag = '"one"'
        self.break_after: list[int] = []  # bytes to send before closing the connection, one a request
        self.delay = threading.Event()  # cleared by a test that wants the first answer to take its time
        self.delay.set()
        self.statuses: list[int] = []  # to answer with before serving, one a request
        self.requests: list[str | None] = []  # the Range header of each request

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/folder/weights.pth"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.requests.append(wanted)
        if self.server.statuses:
            self.send_error(self.server.statuses.pop(0))
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        content = self.server.content
        body = content[start:]
        if not body:
            self.send_error(416)
            return
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if self.server.etag:
            self.send_header("ETag", self.server.etag)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.server.delay.wait(timeout=1.0)
        with contextlib.suppress(BrokenPipeError):  # of a client that has left
            self.wfile.write(body[: self.server.break_after.pop(0)] if self.server.break_after else body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _online_without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BLIP_OFFLINE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(module.time, "sleep", lambda _: None)


def leftovers(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir() if file.name.endswith(".part")]


def test_a_file_is_fetched_once(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "weights.pth"
    for _ in range(2):
        assert download(server.url, path, sha256=SHA256, size=len(CONTENT)) == path
    assert path.read_bytes() == CONTENT
    assert server.requests == [None]
    assert leftovers(path.parent) == []


def test_a_broken_transfer_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.break_after = [300_000, 200_000]
    path = download(server.url, tmp_path / "weights.pth", sha256=SHA256)
    assert path.read_bytes() == CONTENT
    assert server.requests == [None, "bytes=300000-", "bytes=500000-"]


def test_a_later_run_goes_on_where_an_earlier_one_gave_up(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    server.break_after = [100_000] * module._ATTEMPTS
    with pytest.raises(DownloadError, match="the connection broke after 500,000 of 1,048,576 bytes"):
        download(server.url, path)
    assert not path.exists()
    assert download(server.url, path, sha256=SHA256).read_bytes() == CONTENT
    assert server.requests[-1] == "bytes=500000-"


def test_halves_of_two_versions_are_never_joined(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    server.break_after = [100_000] * module._ATTEMPTS
    with pytest.raises(DownloadError):
        download(server.url, path)
    server.content, server.etag = CONTENT[::-1], '"two"'
    assert download(server.url, path).read_bytes() == CONTENT[::-1]
    assert leftovers(tmp_path) == []


def test_where_the_server_names_no_version_a_download_starts_again(server: Server, tmp_path: Path) -> None:
    server.etag, server.break_after = "", [100_000]
    assert download(server.url, tmp_path / "weights.pth").read_bytes() == CONTENT
    assert server.requests == [None, "bytes=100000-", None]


def test_a_part_longer_than_the_file_is_dropped(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".weights.pth.00000000.part").write_bytes(CONTENT + b"more")
    assert download(server.url, tmp_path / "weights.pth").read_bytes() == CONTENT
    assert leftovers(tmp_path) == []


def test_a_passing_fault_is_tried_again(server: Server, tmp_path: Path) -> None:
    server.statuses = [503, 429]
    assert download(server.url, tmp_path / "weights.pth").read_bytes() == CONTENT


def test_a_refusal_is_final_and_says_where_the_file_belongs(server: Server, tmp_path: Path) -> None:
    server.statuses = [403]
    path = tmp_path / "weights.pth"
    with pytest.raises(DownloadError) as caught:
        download(server.url, path)
    assert "403" in str(caught.value)
    assert server.url in str(caught.value)
    assert str(path) in str(caught.value)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("known", "reason"),
    [({"sha256": "0" * 64}, f"its sha256 is {SHA256}"), ({"size": 5}, "it has 1,048,576 bytes where 5 are expected")],
)
def test_a_wrong_file_is_thrown_away(server: Server, tmp_path: Path, known: dict, reason: str) -> None:
    path = tmp_path / "weights.pth"
    with pytest.raises(DownloadError, match=reason):
        download(server.url, path, **known)
    assert not path.exists()
    assert leftovers(tmp_path) == []


def test_the_first_digits_of_a_hash_are_enough(server: Server, tmp_path: Path) -> None:
    assert download(server.url, tmp_path / "weights.pth", sha256=SHA256[:8]).exists()


def test_a_file_put_there_by_hand_must_have_the_known_size(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(b"half")
    with pytest.raises(DownloadError, match="4 bytes where 8 are expected"):
        download("http://127.0.0.1:9/weights.pth", path, size=8)
    assert download("http://127.0.0.1:9/weights.pth", path, size=4) == path


def test_the_hash_stands_beside_the_file(server: Server, tmp_path: Path) -> None:
    path = download(server.url, tmp_path / "weights.pth")
    assert (tmp_path / "weights.pth.sha256").read_text() == f"{SHA256}  weights.pth\n"
    path.unlink()
    server.content = CONTENT[::-1]
    download(server.url, path)
    assert (
        tmp_path / "weights.pth.sha256"
    ).read_text() == f"{hashlib.sha256(CONTENT[::-1]).hexdigest()}  weights.pth\n"


@pytest.mark.parametrize("beside", [None, b"", b"\xff", b"0" * 64])
def test_a_file_put_there_by_hand_must_have_the_known_hash(tmp_path: Path, beside: bytes | None) -> None:
    path, known = tmp_path / "weights.pth", {"sha256": SHA256, "size": len(CONTENT)}
    if beside is not None:
        (tmp_path / "weights.pth.sha256").write_bytes(beside)
    path.write_bytes(CONTENT[::-1])
    with pytest.raises(DownloadError, match=f"has the SHA-256 .* where {SHA256} is expected: delete it and run again"):
        download("http://127.0.0.1:9/weights.pth", path, **known)
    path.write_bytes(CONTENT)
    assert download("http://127.0.0.1:9/weights.pth", path, **known) == path
    assert (tmp_path / "weights.pth.sha256").read_text() == f"{SHA256}  weights.pth\n"  # it is not computed again


@pytest.mark.parametrize("variable", ["BLIP_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_nothing_is_asked_and_the_error_names_file_address_and_place(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "1")
    path = tmp_path / "weights.pth"
    with pytest.raises(DownloadError) as caught:
        download(server.url, path)
    for part in ("weights.pth", server.url, str(path), "BLIP_OFFLINE"):
        assert part in str(caught.value)
    assert server.requests == []


def test_no_server_is_an_error_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="refused"):
        download("http://127.0.0.1:9/weights.pth", tmp_path / "weights.pth")


def test_of_two_processes_one_downloads_and_the_other_waits(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    server.delay.clear()
    code = (
        f"from models.weights.download import download; print(download({server.url!r}, {str(path)!r}).stat().st_size)"
    )
    root = Path(module.__file__).parents[2]
    processes = [subprocess.Popen([sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert outputs == [b"1048576\n"] * 2
    assert server.requests == [None]


def test_the_cache_can_be_moved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BLIP_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("BLIP_CACHE")
    assert cache_dir() == Path.home() / ".cache" / "blip"
