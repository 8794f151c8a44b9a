"""A small object store on loopback with faults: an HTTP server that knows byte ranges, and misbehaves when asked to."""

import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class ObjectStore:
    """Serves the files below a folder.

    faults: name of a file -> list of what happens to its next GETs, in order: "503", "403", "cut" (the connection ends
    half way), "short" (fewer bytes, and it says so), "long", "slow" (a second of silence), "silent" (nothing ever
    comes); under "HEAD" the same of any HEAD. requests: (method, name) of all that came.
    """

    def __init__(self, folder):
        self.folder, self.faults, self.requests = Path(folder), {}, []
        store = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                """Quiet."""

            def do_HEAD(self):
                self.answer(body=False)

            def do_GET(self):
                self.answer(body=True)

            def answer(self, body):
                name = self.path.lstrip("/")
                store.requests.append((self.command, name))
                path = store.folder / name
                waiting = store.faults.get(name if body else "HEAD")
                fault = waiting.pop(0) if waiting else ""
                if fault in ("503", "403") or not path.is_file():
                    return self.send(int(fault or 404), b"")
                content, code = path.read_bytes(), 200
                if body and (match := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))):
                    content, code = content[int(match[1]):int(match[2]) + 1], 206
                if fault == "slow":
                    time.sleep(1)
                if fault == "silent":
                    time.sleep(30)
                if fault in ("short", "long"):
                    content = content[:-7] if fault == "short" else content + b"1234567"
                return self.send(code, content, body, cut=fault == "cut")

            def send(self, code, content, body=True, cut=False):
                self.send_response(code)
                self.send_header("Content-Length", str(len(content)))
                self.send_header("Accept-Ranges", "bytes")
                self.end_headers()
                if body:
                    self.wfile.write(content[:len(content) // 2] if cut else content)
                if cut:
                    self.wfile.flush()
                    self.connection.shutdown(2)
                    self.close_connection = True

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None   # a reader that went away
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def gets(self, name):
        return self.requests.count(("GET", name))

    def close(self):
        self.server.shutdown()
        self.server.server_close()
