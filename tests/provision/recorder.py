"""A proxy before the emulator: names every call, answers chosen ones with an error, or kills the run."""

from __future__ import annotations

import fnmatch
import http.client
import http.server
import json
import os
import re
import signal
import subprocess
import threading
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit


class Recorder(http.server.ThreadingHTTPServer):
    """Stands between one run and the emulator.

    A call is `SERVICE:ACTION`, as in `ec2:RunInstances`; of REST services, `s3:PUT policy` or `route53:POST`.
    The calls of `faults` and `kill_after` may have wildcards, and the region after an `@`.
    """

    daemon_threads = True

    def __init__(self, upstream: str, faults: dict[str, str], kill_after: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.upstream = urlsplit(upstream).netloc
        self.faults = faults
        self.kill_after = kill_after
        self.calls: list[str] = []
        self.killed = False
        self.process: subprocess.Popen[str] | None = None
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> Self:
        """Serve in the background."""
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.shutdown()
        self.server_close()

    def handle_error(self, *_: object) -> None:
        """Say nothing about a client that was killed."""

    def fault(self, call: str, region: str) -> str | None:
        """Return the error that this call is to get."""
        return next((code for wanted, code in self.faults.items() if matches(wanted, call, region)), None)

    def kill(self) -> None:
        """End the run as a power cut would: a module that lives on gets no answer."""
        assert self.process
        self.killed = True
        os.killpg(self.process.pid, signal.SIGKILL)


def matches(wanted: str, call: str, region: str) -> bool:
    return fnmatch.fnmatchcase(f"{call}@{region}", wanted if "@" in wanted else f"{wanted}@*")


class Handler(http.server.BaseHTTPRequestHandler):
    """Passes a request on, unless it is to fail."""

    protocol_version = "HTTP/1.1"
    server: Recorder

    def pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        scope = re.search(r"Credential=[^/]+/\d+/([^/]+)/([^/]+)/", self.headers.get("Authorization", ""))
        region, service = scope.groups() if scope else ("", "")
        call = f"{service}:{self.action(body)}"
        if self.server.killed:
            self.close_connection = True
            return
        self.server.calls.append(call)
        if code := self.server.fault(call, region):
            status, headers, answer = self.error(service, code)
        else:
            upstream = http.client.HTTPConnection(self.server.upstream, timeout=60)
            upstream.request(self.command, self.path, body, dict(self.headers))
            response = upstream.getresponse()
            status, headers, answer = response.status, dict(response.getheaders()), response.read()
            upstream.close()
            if self.server.kill_after and matches(self.server.kill_after, call, region):
                self.server.kill()
                self.close_connection = True
                return
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                self.send_header(name, value)
        self.send_header(
            "Content-Length",
            headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(answer)),
        )
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = pass_on  # noqa: N815

    def action(self, body: bytes) -> str:
        """Find the name of the action where each of AWS's protocols has it."""
        if target := self.headers.get("X-Amz-Target"):
            return target.rpartition(".")[2]
        if "/operation/" in self.path:
            return self.path.rpartition("/")[2]
        if self.headers.get("Content-Type", "").startswith("application/x-www-form-urlencoded"):
            return parse_qs(body.decode())["Action"][0]
        resource = urlsplit(self.path).query.split("&")[0].partition("=")[0]
        return f"{self.command} {resource}".strip()

    def error(self, service: str, code: str) -> tuple[int, dict[str, str], bytes]:
        """Write an error in the service's protocol."""
        message = "the test says no"
        inner = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
        xml = {
            "ec2": f"<Response><Errors>{inner}</Errors><RequestID>1</RequestID></Response>",
            "s3": inner if self.command != "HEAD" else "",
        }.get(service, f"<ErrorResponse>{inner}<RequestId>1</RequestId></ErrorResponse>")
        answer: Any = xml
        kind = "text/xml"
        if "X-Amz-Target" in self.headers:
            answer, kind = json.dumps({"__type": code, "message": message}), "application/x-amz-json-1.1"
        return 403, {"Content-Type": kind}, answer.encode()

    def log_message(self, *_: object) -> None:
        """Keep quiet."""
