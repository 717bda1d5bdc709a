"""Health: what a replication says of itself over HTTP, to systemd, to people and to Prometheus."""

import json
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_LITESTREAM_SECONDS = 2
# A proxy from the environment must not come between us and our own process.
_HTTP = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Health:
    """Answers ``GET /health``: JSON, 200 once the database may be opened, else 503; and ``GET /metrics``.

    Args:
        port: Where to listen, on all addresses; 0 takes a free one.

    Attributes:
        litestream: URL of Litestream's own metrics, once it runs.
    """

    def __init__(self, port: int) -> None:
        self.litestream = ""
        self._said: dict[str, Any] = {"ready": False, "text": "It starts."}
        registry = CollectorRegistry()
        registry.register(_Metrics(self))
        health = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/metrics":
                    self._answer(200, _METRICS_TYPE, generate_latest(registry))
                    return
                said = health.said()
                self._answer(200 if said["ready"] else 503, "application/json", json.dumps(said).encode())

            def _answer(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
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


class _Metrics(Collector):
    """The same for Prometheus, and what Litestream says of itself and its process."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def collect(self) -> Iterator[Metric]:
        said = self._health.said()
        yield GaugeMetricFamily(
            "mlstack_replication_ready", "Whether the database may be opened.", int(said["ready"])
        )
        if "behind" in said:
            yield GaugeMetricFamily(
                "mlstack_replication_behind_seconds",
                "For how long the replica has not been complete.",
                said["behind"],
            )
        if said.get("position"):
            yield GaugeMetricFamily(
                "mlstack_replication_position",
                "The newest transaction that is known to be in the replica.",
                int(said["position"], 16),
            )
        yield from self._of_litestream()

    def _of_litestream(self) -> Iterator[Metric]:
        if not self._health.litestream:
            return
        try:
            with _HTTP.open(self._health.litestream, timeout=_LITESTREAM_SECONDS) as answer:
                text = answer.read().decode()
        except OSError:  # it starts or ends
            return
        for family in text_string_to_metric_families(text):
            if family.name.startswith(("litestream_", "process_")):
                yield family
