"""Addresses that are none, redirects to where nothing is fetched from, and servers whose headers lie."""

import socketserver
import threading
from types import SimpleNamespace

import pytest

from models.errors import UserError
from models.weights import address as address_module
from models.weights import download as module
from models.weights.address import AddressError, open_address, request_address
from models.weights.download import DownloadError, download
from models.weights.files import read_state

BODY = bytes(range(256)) * 40


class Server(socketserver.ThreadingTCPServer):
    """Sends what stands in `answers`, bytes as they are, one a request; `{port}` is its own."""

    allow_reuse_address = daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.requests, self.sent = [], [], 0
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        lines = iter(self.rfile.readline, b"\r\n")
        self.server.requests.append(next(lines).decode("latin-1").strip())
        self.server.requests[-1] += "".join(line.decode() for line in lines if line.startswith(b"Range"))
        answer = self.server.answers.pop(0) if len(self.server.answers) > 1 else self.server.answers[0]
        for block in [answer] if isinstance(answer, bytes) else answer:
            try:
                self.wfile.write(block)
            except OSError:
                return
            self.server.sent += len(block)


def answer(status, *headers, body=BODY):
    return b"\r\n".join([f"HTTP/1.1 {status}".encode(), *(h.encode("utf-8") for h in headers), b"", body])


def endless(*headers):
    yield answer("200 OK", *headers, body=b"")
    while True:
        yield bytes(1 << 16)


@pytest.fixture(autouse=True)
def online(monkeypatch, tmp_path):
    monkeypatch.delenv("BLIP_OFFLINE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("BLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module.time, "sleep", lambda _: None)


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def refusal(server, tmp_path, path="/x", **known):
    """The message that a download ends with, which leaves nothing behind."""
    with pytest.raises(DownloadError) as caught:
        download(server.url + path, tmp_path / "there" / "file.pth", **known)
    assert not list((tmp_path / "there").iterdir())
    message = str(caught.value)
    assert len(message) < 1500
    assert message.replace("\n", "").isprintable()
    return message


# Addresses


@pytest.mark.parametrize(
    ("address", "requested"),
    [
        ("https://host.org/a/b.pth?token=1#part", "https://host.org/a/b.pth?token=1"),
        ("HTTP://Host.org", "http://host.org/"),
        ("http://host.org:80/two words.pth", "http://host.org:80/two%20words.pth"),
        ("http://host.org/ü%20汉?q=é", "http://host.org/%C3%BC%20%E6%B1%89?q=%C3%A9"),
        ("http://bücher.example/x", "http://xn--bcher-kva.example/x"),
        ("http://[::1]:8000/x", "http://[::1]:8000/x"),
        ("http://a/" + "x" * 5000, "http://a/" + "x" * 5000),
    ],
)
def test_an_address_is_written_in_ascii(address, requested):
    assert request_address(address) == requested


@pytest.mark.parametrize(
    "address",
    [
        "http://[::1/x",
        "http://[zz]/x",
        "http://",
        "https:///x",
        "http://host:99999/x",
        "http://host:port/x",
        "http://a b/x",
        "http://a..b/x",
        "http://" + "a" * 5000,
        "https://h/" + "a" * 100_000,
        "http://h/a\nb",
        "http://h\r\n/x",
        "http://h/\x00",
        "http://h/\udc80",
        "http://\udc80/",
        "http://h<>/x",
    ],
)
def test_what_is_no_address_is_a_short_message(address):
    with pytest.raises(UserError, match="^cannot download") as caught:
        read_state(address)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 800


@pytest.mark.parametrize("address", ["ftp://h/x", "file:///etc/passwd", "data:,x", "gopher://h/x", "//h/x"])
def test_only_the_web_is_fetched_from(address, tmp_path):
    with pytest.raises(AddressError, match="must start with http"):
        download(address, tmp_path / "x")
    with pytest.raises(UserError):
        read_state(address)


@pytest.mark.parametrize("address", ["https://user:geheim@h/x", "https://geheim@h/x", "http://a:geheim@[::1/x"])
def test_a_password_is_never_shown(address, tmp_path):
    for fetch in (read_state, lambda source: download(source, tmp_path / "x")):
        with pytest.raises(UserError) as caught:
            fetch(address)
        assert "geheim" not in str(caught.value)


def test_a_long_address_has_a_short_name_in_the_cache(server, tmp_path):
    server.answers = [answer("200 OK", f"Content-Length: {len(BODY)}")]
    with pytest.raises(UserError, match="is not a PyTorch file"):
        read_state(f"{server.url}/{'x' * 3000}/{'ü ' * 400}.pth?{'y' * 500}")
    (file,) = (tmp_path / "cache").glob("*.pth")
    assert file.read_bytes() == BODY
    assert len(file.name) < 120


# Redirects


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
@pytest.mark.parametrize(
    "target", ["/there", "there", "http://127.0.0.1:{port}/there", "HTTP://127.0.0.1:{port}/there"]
)
def test_redirects_are_followed(server, tmp_path, status, target):
    target = target.format(port=server.server_address[1])
    server.answers = [answer(status, f"Location: {target}"), answer("200 OK", f"Content-Length: {len(BODY)}")]
    assert download(f"{server.url}/here", tmp_path / "x").read_bytes() == BODY
    assert server.requests[-1].startswith("GET /there ")


@pytest.mark.parametrize(
    "target",
    [
        "ftp://127.0.0.1/x",
        "file:///etc/passwd",
        "data:,x",
        "javascript:x",
        "http://[::1/x",
        "http://127.0.0.1:99999/x",
        "http://user:geheim@127.0.0.1/x",
        "http://" + "a" * 300,
        "http://a b/x",
        "/" + "a" * 20_000,
    ],
)
def test_redirects_to_odd_places_are_refused(server, tmp_path, target):
    server.answers = [answer("302 Found", f"Location: {target}")]
    message = refusal(server, tmp_path)
    assert "redirects to where nothing is fetched from" in message
    assert "geheim" not in message
    assert len(server.requests) == 1


def test_redirects_in_circles_end(server, tmp_path):
    server.answers = [answer("302 Found", "Location: /x")]
    assert "more than 10 redirects" in refusal(server, tmp_path)
    assert len(server.requests) == 11


def test_a_redirect_to_nowhere_is_a_message(server, tmp_path):
    server.answers = [answer("302 Found")]
    assert "the server answers 302 Found" in refusal(server, tmp_path)


def test_the_endless_body_of_a_redirect_is_not_read(server, tmp_path):
    def redirect():
        yield answer("302 Found", "Location: /there", body=b"")
        while True:
            yield bytes(1 << 16)

    server.answers = [redirect(), answer("200 OK", f"Content-Length: {len(BODY)}")]
    assert download(f"{server.url}/here", tmp_path / "x").read_bytes() == BODY


def test_no_redirect_leads_from_https_to_http():
    with pytest.raises(AddressError, match=r"^https://a/x redirects from https to http://b/x"):
        address_module._redirected("https://a/x", "http://b/x")
    assert address_module._redirected("https://a/x", "//b/ü".encode().decode("latin-1")) == "https://b/%C3%BC"
    assert address_module._redirected("http://a/x", "https://b/x") == "https://b/x"


def test_a_redirect_in_utf_8_is_understood(server):
    server.answers = [answer("302 Found", "Location: /ü x"), answer("200 OK", "Content-Length: 0", body=b"")]
    open_address(f"{server.url}/here").close()
    assert server.requests[-1] == "GET /%C3%BC%20x HTTP/1.1"


# Headers


@pytest.mark.parametrize("length", ["-5", "abc", "1e9", "0x10", "5, 5", "9" * 30])
def test_a_length_that_is_none_ends_the_download(server, tmp_path, length):
    server.answers = [answer("200 OK", f"Content-Length: {length}")]
    assert "the server announces" in refusal(server, tmp_path)


def test_a_length_beyond_the_disk_ends_the_download_before_it_begins(server, tmp_path):
    server.answers = [endless(f"Content-Length: {10**17}")]
    assert "it has 100,000,000,000,000,000 bytes" in refusal(server, tmp_path)


def test_a_length_that_is_not_the_expected_one_ends_the_download_before_it_begins(server, tmp_path):
    server.answers = [endless(f"Content-Length: {10**9}")]
    assert "it has 1,000,000,000 bytes where 5 are expected" in refusal(server, tmp_path, size=5)


def test_without_a_length_a_file_is_read_to_its_end(server, tmp_path):
    server.answers = [answer("200 OK")]
    assert download(f"{server.url}/x", tmp_path / "x").read_bytes() == BODY


def test_an_endless_body_ends_at_the_expected_size(server, tmp_path):
    server.answers = [endless()]
    assert "the server sends more than 1,000,000 bytes" in refusal(server, tmp_path, size=1_000_000)
    assert server.sent < 50 << 20


def test_an_endless_body_of_unknown_size_does_not_fill_the_disk(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=4_000_000))
    server.answers = [endless()]
    assert "the server sends more than 2,000,000 bytes" in refusal(server, tmp_path)
    assert server.sent < 50 << 20


@pytest.mark.parametrize("status", ["204 No Content", "206 Partial Content", "203 Other"])
def test_an_answer_of_another_kind_than_the_file_is_refused(server, tmp_path, status):
    server.answers = [answer(status, f"Content-Length: {len(BODY)}")]
    assert f"the server answers {status[:3]}" in refusal(server, tmp_path)


@pytest.mark.parametrize(
    "content_range",
    [
        "bytes 100-199/10240",
        "bytes 100-10239/99999",
        "bytes 0-10239/10240",
        "bytes 100-/10240",
        "bytes 100-10239/10240, bytes 5-6/7",
        "bytes -100-10239/10240",
        "lines 100-10239/10240",
        "",
    ],
)
def test_a_rest_that_is_not_the_rest_is_thrown_away(server, tmp_path, content_range):
    headers = ["ETag: a", f"Content-Length: {len(BODY)}"]
    rest = answer(
        "206 Partial Content",
        "ETag: a",
        f"Content-Range: {content_range}",
        f"Content-Length: {len(BODY) - 100}",
        body=BODY,
    )
    server.answers = [answer("200 OK", *headers, body=BODY[:100]), rest, answer("200 OK", *headers)]
    assert download(f"{server.url}/x", tmp_path / "x").read_bytes() == BODY
    assert [request.partition("HTTP/1.1")[2] for request in server.requests] == ["", "Range: bytes=100-\r\n", ""]


@pytest.mark.parametrize(
    "text", [b"", b"garbage\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200]
)
def test_what_is_no_answer_is_a_message(server, tmp_path, text):
    server.answers = [text]
    refusal(server, tmp_path)


def test_the_reason_of_a_server_reaches_the_message_escaped(server, tmp_path):
    server.answers = [answer("403 \x1b[31mno\x07" + "x" * 1000)]
    assert "the server answers 403 \\x1b[31mno\\x07xxx" in refusal(server, tmp_path)
