"""A small object store on loopback with faults: an HTTP server that knows byte ranges, and misbehaves when asked to."""

import http.client
import itertools
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

FAILURES = ("503", "cut", "short", "long")
FAULTS = (*FAILURES, "slow")
_OF_A_HOP = frozenset({"connection", "transfer-encoding", "content-length", "date", "server"})


class ObjectStore:
    """Serves the files below a folder, or passes everything on to another server.

    faults: name of a file -> list of what happens to its next GETs, in order: "503", "403", "404", "cut" (the
        connection ends half way), "short" (fewer bytes, and it says so), "long", "slow" (a short silence), "silent"
        (nothing ever comes), "whole" (all of it though a part was asked for), "moved" (a redirect to the same place);
        under "HEAD" the same of any HEAD.
    every: each so many-th request of any kind fails, one GET after another in the ways of FAILURES, a HEAD with 503;
        0: none does. met: how many did.
    on_request: called with the name of each. requests: (method, name) of all that came. sent: bytes of all answers.
    """

    def __init__(self, folder=None, upstream=None):
        self.folder, self.upstream = folder and Path(folder), upstream and urlsplit(upstream)
        self.faults, self.requests, self.sent, self.every, self.met, self.on_request = {}, [], 0, 0, 0, None
        self.count, self.kinds, self.lock = itertools.count(1), itertools.cycle(FAILURES), threading.Lock()
        store = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True   # else each answer waits 40 ms for its second packet

            def log_message(self, *_):
                """Quiet."""

            def do_any(self):
                store.answer(self)

            do_HEAD = do_GET = do_PUT = do_POST = do_DELETE = do_any

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None   # a reader that went away
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, request):
        """One request."""
        name = unquote(request.path.partition("?")[0].lstrip("/"))
        length = int(request.headers.get("Content-Length") or 0)
        sent = request.rfile.read(length)
        with self.lock:
            self.requests.append((request.command, name))
            fault = self.fault_of(request.command, name)
        if self.on_request:
            self.on_request(name)
        if fault in ("503", "403", "404"):
            return self.send(request, int(fault), b"", {}, fault)
        if fault == "moved":
            return self.send(request, 302, b"", {"Location": request.path}, fault)
        if fault == "slow":
            time.sleep(.3)
        if fault == "silent":
            time.sleep(30)
        if fault == "whole":
            del request.headers["Range"]
        code, content, headers = (self.passed_on if self.upstream else self.found)(request, name, sent)
        if fault in ("short", "long"):
            content = content[:-7] if fault == "short" else content + b"1234567"
        return self.send(request, code, content, headers, fault)

    def fault_of(self, command, name):
        """What happens to this request."""
        waiting = self.faults.get("HEAD" if command == "HEAD" else name if command == "GET" else None)
        if waiting:
            return waiting.pop(0)
        if self.every and command in ("GET", "HEAD") and next(self.count) % self.every == 0:
            self.met += 1
            return next(self.kinds) if command == "GET" else "503"
        return ""

    def found(self, request, name, _):
        """(code, content, headers) of a file, or of the part that is asked for."""
        path = self.folder / name
        if not path.is_file():
            return 404, b"", {}
        size, headers = path.stat().st_size, {"Accept-Ranges": "bytes", "ETag": f'"{path.stat().st_mtime_ns}"'}
        if request.command == "HEAD":
            return 200, bytes(size), headers
        part = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range", ""))
        with open(path, "rb") as file:
            if not part:
                return 200, file.read(), headers
            file.seek(int(part[1]))
            return 206, file.read(int(part[2]) + 1 - int(part[1])), headers

    def passed_on(self, request, _, sent):
        """What the other server says."""
        connection = http.client.HTTPConnection(self.upstream.hostname, self.upstream.port)
        connection.request(request.command, request.path, sent, dict(request.headers))
        answer = connection.getresponse()
        content, headers = answer.read(), {key: value for key, value in answer.getheaders()
                                           if key.lower() not in _OF_A_HOP}
        if request.command == "HEAD":
            content = bytes(int(answer.getheader("Content-Length") or 0))
        connection.close()
        return answer.status, content, headers

    def send(self, request, code, content, headers, fault):
        """Send an answer, or half of it."""
        request.send_response(code)
        for key, value in headers.items():
            request.send_header(key, value)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if request.command != "HEAD":
            part = content[:len(content) // 2] if fault == "cut" else content
            self.sent += len(part)
            request.wfile.write(part)
        if fault == "cut":
            request.wfile.flush()
            request.connection.shutdown(2)
            request.close_connection = True

    def gets(self, name):
        return self.requests.count(("GET", name))

    def close(self):
        self.server.shutdown()
        self.server.server_close()
