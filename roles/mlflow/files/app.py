"""MLflow's server as an ASGI application that one request can't bring down; started by serve.py.

MLflow reads a whole body into memory, all but artifacts, so it gets none that is larger than what any client
of it sends. And its job routes are closed: with jobs off they do nothing, but the first call imports what
they need in the same moment as other requests import, under two locks, and all of them wait for ever.
"""

import asyncio
import json
import os
import sys

import flask
import uvicorn
from mlflow.server import app as flask_app
from mlflow.server.fastapi_app import app as mlflow_app
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_CLOSED = "/ajax-api/3.0/jobs"
_STREAMED = "/mlflow-artifacts/artifacts/"
_LARGE_BYTES, _LARGE_AT_ONCE = 2**20, 2
_WATCH = "mlstack-watch"


class _TooLargeError(Exception):
    pass


class Bounded:
    """Refuses bodies that are too large, and takes large ones in turns.

    Args:
        app: What answers the others.
        most_mib: Largest body of a request that isn't an artifact, in MiB.
    """

    def __init__(self, app: ASGIApp, most_mib: int) -> None:
        self._app = app
        self._most_mib = most_mib
        self._turns = asyncio.Semaphore(_LARGE_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http" or _STREAMED in scope["path"]:
            await self._app(scope, receive, send)
            return
        if scope["path"].startswith(_CLOSED):
            await _refuse(
                send, 404, "ENDPOINT_NOT_FOUND", "This server runs no jobs, so it has no job routes."
            )
            return
        headers = dict(scope["headers"])
        declared = int(headers.get(b"content-length", 0))
        if declared <= _LARGE_BYTES and b"transfer-encoding" not in headers:
            await self._app(scope, receive, send)
            return
        async with self._turns:
            try:
                body = await self._read(receive, declared)
            except _TooLargeError:
                message = (
                    f"Expected a body of at most {self._most_mib} MiB; got a larger one. "
                    "Log what is large as an artifact, or set mlflow_max_body_mib."
                )
                await _refuse(send, 413, "INVALID_PARAMETER_VALUE", message)
                return
            await self._app(scope, _replayed(body, receive), send)

    async def _read(self, receive: Receive, declared: int) -> bytes:
        most = self._most_mib * 2**20
        if declared > most:
            raise _TooLargeError
        parts, size, more = [], 0, True
        while more:
            message = await receive()
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > most:
                raise _TooLargeError
            more = message.get("more_body", False)
        return b"".join(parts)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return a body once; then what comes after it."""
    left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return left.pop() if left else await receive()

    return replay


async def _refuse(send: Send, status: int, code: str, message: str) -> None:
    content = json.dumps({"error_code": code, "message": message}).encode()
    headers = {
        b"content-type": b"application/json",
        b"content-length": str(len(content)).encode(),
        b"connection": b"close",  # what was not read can't be told from the next request
    }
    await send({"type": "http.response.start", "status": status, "headers": list(headers.items())})
    await send({"type": "http.response.body", "body": content})


@flask_app.before_request
def leave_out_watch() -> None:
    """Mark a request of the watch, so that the exporter does not count it."""
    if flask.request.user_agent.string == _WATCH:
        flask.request.prom_do_not_track = True  # type: ignore[attr-defined]


app = Bounded(mlflow_app, int(os.environ.get("MLSTACK_MAX_BODY_MIB", "32")))
if __name__ == "__main__":
    sys.exit(uvicorn.main())
