"""A stand-in of the Hugging Face hub on this machine: repositories are created, written to, and read."""

import base64
import contextlib
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator

import huggingface_hub.constants
import pytest


class Hub(http.server.ThreadingHTTPServer):
    """Holds the files of repositories, and answers as the hub does to the calls of `huggingface_hub`.

    Attributes:
        files: repository -> name -> content.
        token: the one that may write; any may when None.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.token: str | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if self.server.token and self.headers.get("Authorization") != f"Bearer {self.server.token}":
            return self._json({"error": "Invalid username or password."}, 401)
        if self.path == "/api/repos/create":
            wanted = json.loads(body)
            name = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
            if wanted.get("private") or wanted.get("visibility") == "private":
                self.server.private.add(name)
            if name in self.server.files:
                return self._json({"error": "exists", "url": f"{self.server.url}/{name}"}, 409)
            self.server.files[name] = {}
            return self._json({"url": f"{self.server.url}/{name}"})
        repository, action = re.match(r"/api/models/([^/]+/[^/]+)/(\w+)/", self.path).groups()
        if action == "preupload":
            names = [file["path"] for file in json.loads(body)["files"]]
            rules = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
            return self._json({"files": rules})
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                content = base64.b64decode(line["value"]["content"])
                self.server.files[repository][line["value"]["path"]] = content
        url = f"{self.server.url}/{repository}/commit/{'1' * 40}"
        return self._json({"commitUrl": url, "commitOid": "1" * 40, "success": True})

    def do_GET(self) -> None:
        if info := re.match(r"/api/models/([^/]+/[^/?]+)", self.path):
            files = self.server.files.get(info[1])
            if files is None:
                return self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            if "/tree/" in self.path:
                return self._json(
                    [
                        {"type": "file", "path": name, "size": len(content), "oid": "0"}
                        for name, content in files.items()
                    ]
                )
            siblings = [{"rfilename": name, "size": len(content)} for name, content in files.items()]
            return self._json({"id": info[1], "modelId": info[1], "sha": "1" * 40, "siblings": siblings, "tags": []})
        wanted = re.match(r"/([^/]+/[^/]+)/resolve/[^/]+/([^?]+)", self.path)
        content = self.server.files.get(wanted[1], {}).get(wanted[2]) if wanted else None
        if content is None:
            return self._json({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
        etag = hashlib.sha256(content).hexdigest()
        return self._answer(content, 200, {"ETag": f'"{etag}"', "X-Repo-Commit": "1" * 40})

    do_HEAD = do_GET

    def _json(self, value: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._answer(json.dumps(value).encode(), status, {"Content-Type": "application/json", **(headers or {})})

    def _answer(self, content: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def running_hub(monkeypatch: pytest.MonkeyPatch, cache: str) -> Iterator[Hub]:
    """A hub to which `huggingface_hub` talks in place of the real one, with an empty cache."""
    constants = huggingface_hub.constants
    with Hub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", cache)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "")
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield hub
        hub.shutdown()
        thread.join()
