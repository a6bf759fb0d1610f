"""A web server with ranges that serves files from memory, notes what is asked for, and does wrong on request."""

import re
import threading
import time
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class WebServer:
    """Files by name at `address`/NAME, while `with WebServer() as server:` runs.

    Attributes:
        files: what it serves; each version of a file has its own ETag.
        faults: name -> what is wrong with the next GETs of it, one after the other; of a list that ends in `...`, the
            fault before that stays.
        gets: (name, first byte, last byte) of each GET, in their order; without a range, the bytes are None.
    """

    def __init__(self):
        self.files, self.faults, self.gets = {}, {}, []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments):
                pass

            def do_HEAD(self):
                server.answer(self, with_body=False)

            def do_GET(self):
                server.answer(self, with_body=True)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self._server.shutdown()
        self._server.server_close()

    def reads_of(self, name):
        """How often the first byte of a file was asked for."""
        return sum(one == name and not first for one, first, _ in self.gets)

    def answer(self, handler, with_body):
        name = handler.path.lstrip("/").partition("?")[0]
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", handler.headers.get("Range", ""))
        fault = self._fault(name) if with_body else None
        if with_body:
            self.gets.append((name, *((int(found[1]), int(found[2])) if found else (None, None))))
        if isinstance(fault, int) or name not in self.files:
            self._send(handler, fault or 404, b"", {})
            return
        content = self.files[name]
        headers = {"ETag": f'"{hash(content)}"', "Accept-Ranges": "bytes"}
        if found and fault != "ignores ranges":
            first, last = int(found[1]), min(int(found[2]), len(content) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            self._send(handler, 206, content[first : last + 1], headers, fault, with_body)
        else:
            self._send(handler, 200, content, headers, fault, with_body)

    def _fault(self, name):
        faults = self.faults.get(name)
        if not faults:
            return None
        if faults[-1] is ... and len(faults) == 2:
            return faults[0]
        return faults.popleft() if isinstance(faults, deque) else faults.pop(0)

    def _send(self, handler, status, body, headers, fault=None, with_body=True):
        handler.send_response(status)
        length = len(body) if fault != "too short" else len(body) // 2
        for key, value in {**headers, "Content-Length": length}.items():
            handler.send_header(key, str(value))
        handler.end_headers()
        if not with_body:
            return
        if fault == "cut":
            handler.wfile.write(body[: len(body) // 2])
            handler.close_connection = True
        elif fault == "drips":
            try:
                for byte in body:
                    handler.wfile.write(bytes([byte]))
                    time.sleep(0.05)
            except OSError:  # the client has had enough
                handler.close_connection = True
        else:
            handler.wfile.write(body[:length])
