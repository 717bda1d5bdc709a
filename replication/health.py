"""Health: what a replication says of itself over HTTP, to systemd, to people and to monitoring."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Health:
    """Answers ``GET /health`` with JSON: 200 once the database may be opened, 503 before.

    Args:
        port: Where to listen, on all addresses; 0 takes a free one.
    """

    def __init__(self, port: int) -> None:
        self._said: dict[str, Any] = {"ready": False, "text": "It starts."}
        health = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                said = health.said()
                body = json.dumps(said).encode()
                self.send_response(200 if said["ready"] else 503)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Keep quiet: it is asked every two seconds."""

        self._server = ThreadingHTTPServer(("", port), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def tell(self, **said: object) -> None:
        """Say more, or something else; another text is printed as well.

        Args:
            said: ``ready``; ``text`` for people; ``generation``; ``position``, the newest transaction that is
                known to be in the replica; ``synced``, when it was last complete, in seconds since 1970.
        """
        if said.get("text", self._said["text"]) != self._said["text"]:
            print(said["text"], flush=True)
        self._said = {**self._said, **said}

    def said(self) -> dict[str, Any]:
        """Return what is said, with ``behind``: for how many seconds the replica has not been complete."""
        synced = self._said.get("synced")
        return self._said if synced is None else {**self._said, "behind": max(0.0, time.time() - synced)}
