"""A real S3 server on loopback, and a proxy before it that misbehaves when asked to."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support.leaks import SHARED_PREFIX, share_process

BUCKET = "runs"


class S3Server:
    """moto's server in a process of its own, with one bucket."""

    def __init__(self):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        share_process(self._process.pid)
        self.endpoint = f"http://127.0.0.1:{self.port}"
        try:
            self._wait()
            self.make_bucket(BUCKET)
        except BaseException:
            self.close()
            raise

    def _wait(self):
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert self._process.poll() is None, "the S3 server has ended"
            assert time.monotonic() < deadline, "the S3 server does not answer"
            time.sleep(0.05)

    def make_bucket(self, name):
        request = urllib.request.Request(f"{self.endpoint}/{name}", method="PUT")
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60):
            pass

    def close(self):
        self._process.kill()
        self._process.wait(30)


def environment(endpoint):
    """The variables with which anything finds a server, and finds nothing else."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


class Proxy:
    """Passes requests on to a server, but for those that it has been told to answer itself.

    Attributes:
        seen: (method, path) of every request, in order.
        ignored_headers: Names of request headers, in lower case, that the server does not get.
    """

    def __init__(self, server):
        self.seen = []
        self.ignored_headers = set()
        self._rules = []
        self._lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def handle_any(self):
                body = self._body()
                answer = proxy._judge(self.command, self.path)
                if answer is None:
                    status, headers, content = proxy._pass_on(server.port, self, body)
                elif answer == "hang":
                    time.sleep(60)
                    return
                else:
                    status, code = answer
                    headers = {"Content-Type": "application/xml"}
                    content = f"<Error><Code>{code}</Code><Message>so the test says</Message></Error>".encode()
                self.send_response(status)
                length = headers.pop("Content-Length", str(len(content)))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", length if self.command == "HEAD" else str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any

            def _body(self):
                if self.headers.get("Transfer-Encoding") == "chunked":
                    parts = []
                    while size := int(self.rfile.readline().split(b";")[0], 16):
                        parts.append(self.rfile.read(size))
                        self.rfile.readline()
                    self.rfile.readline()
                    return b"".join(parts)
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        self._httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._httpd.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._httpd.server_port}"
        self._thread = threading.Thread(
            target=self._httpd.serve_forever, args=(0.05,), name=f"{SHARED_PREFIX}proxy", daemon=True
        )
        self._thread.start()

    def answer(self, status, code, *, method="", path="", times=None):
        """Answers requests that match (path: a regular expression) with an S3 error, `times` times or until `heal`."""
        with self._lock:
            self._rules.append([(status, code), method, re.compile(path), times])

    def hang(self, *, method="", path=""):
        """Leaves requests without an answer."""
        with self._lock:
            self._rules.append(["hang", method, re.compile(path), None])

    def heal(self):
        """Passes everything on again."""
        with self._lock:
            self._rules.clear()

    def _judge(self, method, path):
        with self._lock:
            self.seen.append((method, path))
            for rule in self._rules:
                answer, only_method, only_path, times = rule
                if only_method in ("", method) and only_path.search(path) and times != 0:
                    rule[3] = None if times is None else times - 1
                    return answer
        return None

    def _pass_on(self, port, request, body):
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            dropped = {"transfer-encoding", *self.ignored_headers}
            headers = {name: value for name, value in request.headers.items() if name.lower() not in dropped}
            headers["Content-Length"] = str(len(body))
            connection.request(request.command, request.path, body, headers)
            response = connection.getresponse()
            content = response.read()
            kept = {
                name: value
                for name, value in response.getheaders()
                if name.lower() not in ("transfer-encoding", "connection", "date", "server")
            }
            return response.status, kept, content
        finally:
            connection.close()

    def close(self):
        self._httpd.shutdown()
        self._httpd.server_close()
        self._thread.join(10)
