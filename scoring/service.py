"""The HTTP service: it parses, asks a model, and answers. Its description is in scoring.openapi."""

import asyncio
import importlib.util
import logging
import os
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from scoring import openapi, requests
from scoring.metrics import CONTENT_TYPE, Metrics
from scoring.store import Served, Store, View
from serving.activity import ActivityLog
from serving.client import Client
from serving.contract import MLFLOW_VERSION
from serving.errors import Field as BadField
from serving.errors import ServingError, bad_fields, too_large, unsupported
from serving.memory import release
from serving.model import LoadedModel

_INLINE_BYTES = 16 * 1024  # up to this, and for a quick model, a thread would take longer than the answer
_INLINE_SECONDS = 0.010
_HEAVY_BYTES = 1024 * 1024  # above this, one at a time: what it unpacks to may be many times as large
_WAITING = 64  # requests that may wait for a thread
_BODY_SECONDS = 30.0
_BODIES = 4  # so many of the largest bodies may be in memory at once
_DRAIN_BODIES = (
    8  # so much of a body that is too large is read and dropped, so that its sender can read the answer
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """What an operator may choose.

    Attributes:
        data: Folder of the models.
        default_model: What `/invocations` asks; empty if it is the only one.
        max_body_mib: Largest body.
        max_rows: Most rows of a request.
        threads: Predictions at once, besides quick ones.
        extra_columns: `ignore` columns that the model does not know, as MLflow does, or `refuse` them.
    """

    data: Path
    default_model: str = ""
    max_body_mib: int = 10
    max_rows: int = 100_000
    threads: int = 2
    extra_columns: str = "ignore"

    @classmethod
    def from_environment(cls) -> Self:
        """Read MLSTACK_SCORING_DATA and so on, each named as its attribute.

        Raises:
            ValueError: One has a value that is not allowed.
        """
        given = {
            name: os.environ[f"MLSTACK_SCORING_{name.upper()}"]
            for name in cls.__dataclass_fields__
            if os.environ.get(f"MLSTACK_SCORING_{name.upper()}")
        }
        extra = given.get("extra_columns", "ignore")
        if extra not in ("ignore", "refuse"):
            raise ValueError(
                f"Expected ignore or refuse; got {extra!r}. Set MLSTACK_SCORING_EXTRA_COLUMNS to one."
            )
        return cls(
            data=Path(given.get("data", "models")),
            default_model=given.get("default_model", ""),
            max_body_mib=int(given.get("max_body_mib", "10")),
            max_rows=int(given.get("max_rows", "100000")),
            threads=int(given.get("threads", "2")),
            extra_columns=extra,
        )


@dataclass(frozen=True)
class _Style:
    """How the three paths for predictions differ, by what their clients expect.

    Attributes:
        operation: What the metrics call it.
        names_model: Whether the JSON says which model; MLflow's has only the predictions.
        sagemaker: Whether errors and CSV are as SageMaker has them.
        logged: Whether predictions are logged, and counted.
    """

    operation: str
    names_model: bool = False
    sagemaker: bool = False
    logged: bool = True


MLFLOW, OWN = _Style("invocations"), _Style("models", names_model=True)
SAGEMAKER = _Style("endpoints", sagemaker=True)


def create_app(settings: Settings, client: Client, activity: ActivityLog) -> Starlette:
    """Build the service.

    Args:
        settings: What the operator chose.
        client: MLflow, where the models come from.
        activity: The log of predictions.
    """
    store = Store(client, settings.data)
    service = Service(settings, store, activity)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        store.start()
        yield
        await asyncio.to_thread(store.close)
        await asyncio.to_thread(activity.close)
        service.close()

    # Swagger UI from a package: the page must work where a browser can't reach a CDN.
    assets = Path(importlib.util.find_spec("fastapi_offline").submodule_search_locations[0]) / "static"  # type: ignore[union-attr, index]
    return Starlette(
        routes=[
            Route("/invocations", service.endpoint(MLFLOW), methods=["POST"]),
            Route("/models/{name}/invocations", service.endpoint(OWN), methods=["POST"]),
            Route("/endpoints/{name}/invocations", service.endpoint(SAGEMAKER), methods=["POST"]),
            Route("/ping", service.ping),
            Route("/health", service.health),
            Route("/version", service.version),
            Route("/metrics", service.metrics),
            Route("/models", service.models),
            Route("/openapi.json", service.openapi),
            Route("/docs", lambda _request: HTMLResponse(openapi.PAGE)),
            Route("/", lambda _request: RedirectResponse("docs")),
            Mount("/static", StaticFiles(directory=assets)),
        ],
        exception_handlers={HTTPException: _http_error, Exception: _unexpected},
        lifespan=lifespan,
    )


class Service:
    """The endpoints.

    Args:
        settings: What the operator chose.
        store: The models.
        activity: The log of predictions.
    """

    def __init__(self, settings: Settings, store: Store, activity: ActivityLog) -> None:
        self._settings = settings
        self._store = store
        self._activity = activity
        self._metrics = Metrics(store)
        self._max_body = settings.max_body_mib * 1024 * 1024
        self._held = 0  # bytes of all bodies in memory
        self._waiting = 0
        self._heavy = asyncio.Semaphore(1)
        self._pool = ThreadPoolExecutor(settings.threads, thread_name_prefix="predict")
        self._described: tuple[View, bytes] | None = None

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def endpoint(self, style: _Style) -> "_Endpoint":
        """Return what answers `/invocations`, in one of the three styles."""
        return _Endpoint(self, style)

    async def ping(self, _request: HttpRequest) -> Response:
        """Answer 200 if a model does, so that a load balancer may send requests."""
        ready = any(served.loaded for served in self._store.view.models.values())
        return Response("\n", 200 if ready else 503, media_type=requests.JSON)

    async def health(self, _request: HttpRequest) -> Response:
        """Report the state of the service and of each model."""
        view = self._store.view
        status = _status(view)
        content = {
            "status": status,
            "mlflow": {
                "reachable": view.mlflow_error is None and view.checked_at is not None,
                "checked_at": view.checked_at,
                "error": view.mlflow_error,
            },
            "models": {name: _state(served) for name, served in sorted(view.models.items())},
        }
        return _json(content, 503 if status in ("starting", "failing") else 200)

    async def version(self, _request: HttpRequest) -> Response:
        """Answer the MLflow version whose contract this keeps, as MLflow's own server does."""
        return Response(MLFLOW_VERSION, media_type=requests.JSON)

    async def metrics(self, _request: HttpRequest) -> Response:
        """Answer Prometheus."""
        return Response(self._metrics.text(), headers={"content-type": CONTENT_TYPE})

    async def models(self, _request: HttpRequest) -> Response:
        """List the models that are served, and their columns."""
        view = self._store.view
        default = self._default(view)
        return _json(
            {
                "models": [
                    {
                        "name": name,
                        **_state(served),
                        "default": name == default,
                        "invocations": f"/models/{quote(name, safe='')}/invocations",
                        "columns": [asdict(c) for c in served.loaded.signature.columns]
                        if served.loaded
                        else [],
                    }
                    for name, served in sorted(view.models.items())
                ]
            }
        )

    async def openapi(self, _request: HttpRequest) -> Response:
        """Return the OpenAPI description, with the columns of the models that are served now."""
        view = self._store.view
        if self._described is None or self._described[0] is not view:
            loaded = [served.loaded for _, served in sorted(view.models.items()) if served.loaded]
            self._described = (
                view,
                orjson.dumps(openapi.describe(loaded, self._default(view), self._settings.max_rows)),
            )
        return Response(self._described[1], media_type=requests.JSON)

    def find(self, name: str | None) -> LoadedModel:
        """Return the model of a name, or the one for requests that name none.

        Raises:
            ServingError: There is none, or it is not loaded.
        """
        view = self._store.view
        wanted = self._default(view) if name is None else name
        served = view.models.get(wanted) if wanted is not None else None
        if served is not None and served.loaded is not None:
            return served.loaded
        if not view.started:
            raise ServingError(
                "The models are still being loaded. Try again shortly.",
                503,
                "TEMPORARILY_UNAVAILABLE",
                retry_after=2,
            )
        known = ", ".join(sorted(name for name, served in view.models.items() if served.loaded)) or "none"
        if served is not None:
            raise ServingError(
                f"{wanted} version {served.champion.version} can't be served. {served.error}"
                f" Models that are served: {known}.",
                503,
                "TEMPORARILY_UNAVAILABLE",
                retry_after=60,
            )
        if wanted is None:
            raise ServingError(
                "Expected the name of a model; got none. Post to /models/NAME/invocations."
                f" Models that are served: {known}.",
                404,
                "RESOURCE_DOES_NOT_EXIST",
            )
        raise ServingError(
            f"Expected a registered model with a champion; got {wanted[:100]!r}."
            f" Models that are served: {known}.",
            404,
            "RESOURCE_DOES_NOT_EXIST",
        )

    def count(self, style: _Style, name: str | None, status: int, seconds: float) -> None:
        """Count a request that was answered, by the model it asks."""
        asked = self._default(self._store.view) if name is None else name
        self._metrics.answered(style.operation, asked, status, seconds)

    def _default(self, view: View) -> str | None:
        if self._settings.default_model:
            return self._settings.default_model
        return next(iter(view.models)) if len(view.models) == 1 else None

    async def answer(self, model: LoadedModel, kind: str, body: bytes, style: _Style) -> bytes:
        """Ask a model, here if that is quick, else in a thread.

        Raises:
            ServingError: The body does not fit, the model refuses, or too many are waiting.
        """
        if len(body) <= _INLINE_BYTES and model.seconds <= _INLINE_SECONDS:
            return self._predict(model, kind, body, style)
        if self._waiting >= _WAITING:
            raise ServingError(
                f"Expected at most {_WAITING} waiting requests; got one more. Send it again later.",
                429,
                "REQUEST_LIMIT_EXCEEDED",
                retry_after=1,
            )
        loop = asyncio.get_running_loop()
        self._waiting += 1
        try:
            if len(body) <= _HEAVY_BYTES:
                return await loop.run_in_executor(self._pool, self._predict, model, kind, body, style)
            async with self._heavy:
                return await loop.run_in_executor(self._pool, self._predict_large, model, kind, body, style)
        finally:
            self._waiting -= 1

    def _predict_large(self, model: LoadedModel, kind: str, body: bytes, style: _Style) -> bytes:
        try:
            return self._predict(model, kind, body, style)
        finally:
            release()

    def _predict(self, model: LoadedModel, kind: str, body: bytes, style: _Style) -> bytes:
        started = time.perf_counter()
        try:
            asked = requests.read(
                body, kind, model.signature, self._settings.max_rows, headless_csv=style.sagemaker
            )
            if asked.ignored and self._settings.extra_columns == "refuse":
                raise bad_fields(
                    [
                        BadField(name, None, "expected only the model's columns; got an unknown one")
                        for name in asked.ignored
                    ]
                )
            predictions = model.predict(asked.table)
            content: dict[str, Any] = {"predictions": predictions}
            if style.names_model:
                content["model"] = {"name": model.name, "version": model.version}
            answer = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
        except ServingError as error:
            if style.logged:
                self._record(model, started, error.status)
            raise
        if style.logged:
            self._metrics.predicted(model.name, model.version, asked.rows)
            self._record(model, started, 200, asked, predictions)
        return answer

    def _record(
        self,
        model: LoadedModel,
        started: float,
        status: int,
        asked: requests.Request | None = None,
        predictions: list[Any] | None = None,
    ) -> None:
        if self._activity.policy == "off":
            return
        self._activity.record(
            source="rest",
            model=model.name,
            version=model.version,
            rows=asked.rows if asked else 0,
            latency_ms=1000 * (time.perf_counter() - started),
            status=status,
            inputs=model.signature.frame(asked.table) if asked else None,
            outputs=predictions,
        )

    async def body(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        """Read a body, as far as there is room for it.

        Raises:
            ServingError: It is too large, too slow, or compressed.
        """
        if headers.get(b"content-encoding", b"identity").lower() not in (b"identity", b""):
            raise unsupported(
                "Expected a body that is not compressed; got a Content-Encoding. Send it plain."
            )
        length = headers.get(b"content-length", b"0")
        declared = int(length) if length.isdigit() else 0
        parts: list[bytes] = []
        read = 0
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                while True:
                    message = await receive()
                    part = message.get("body", b"")
                    read += len(part)
                    if max(declared, read) <= self._max_body:
                        parts.append(part)
                        self._held += len(part)
                        if self._held > _BODIES * self._max_body:
                            raise ServingError(
                                "Expected fewer large requests at once; got one more. Send it again later.",
                                429,
                                "REQUEST_LIMIT_EXCEEDED",
                                retry_after=1,
                            )
                    elif parts:
                        self._held -= sum(map(len, parts))
                        parts.clear()
                    if message["type"] == "http.disconnect" or not message.get("more_body", False):
                        break
                    if read > _DRAIN_BODIES * self._max_body:
                        break
        except TimeoutError:
            raise ServingError(
                f"Expected the whole body within {_BODY_SECONDS:.0f} s; got a part. Send it again.",
                408,
                "REQUEST_TIMEOUT",
            ) from None
        finally:
            self._held -= sum(map(len, parts))
        if max(declared, read) > self._max_body:
            raise too_large(
                f"Expected a body of at most {self._settings.max_body_mib} MiB; got a larger one."
                " Send it in several requests."
            )
        return b"".join(parts)


class _Endpoint:
    """One of the paths for predictions: plain ASGI, because they must be fast."""

    def __init__(self, service: Service, style: _Style) -> None:
        self._service = service
        self._style = style

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        headers = dict(scope["headers"])
        name = scope["path_params"].get("name")
        # What only checks the service, such as `verify`, is no traffic.
        style = replace(self._style, logged=False) if b"mlstack-unlogged" in headers else self._style
        model: LoadedModel | None = None
        more: list[tuple[bytes, bytes]] = []
        status = 200
        try:
            body = await self._service.body(headers, receive)
            model = self._service.find(name)
            kind = requests.media_type(headers.get(b"content-type", b"").decode("latin-1"))
            answer = await self._service.answer(model, kind, body, style)
        except ServingError as error:
            status, answer, more = self._refuse(error)
        except Exception as error:  # noqa: BLE001 - the caller gets no stack trace, and the service goes on
            status, answer, more = self._refuse(_internal(error))
        if model is not None:
            more += [
                (b"mlstack-model", quote(model.name).encode()),
                (b"mlstack-model-version", quote(model.version).encode()),
            ]
            if self._style.sagemaker:
                more.append(
                    (b"x-amzn-invoked-production-variant", b"champion-" + quote(model.version).encode())
                )
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [
                    (b"content-type", b"application/json"),
                    (b"content-length", str(len(answer)).encode()),
                    *more,
                ],
            }
        )
        await send({"type": "http.response.body", "body": answer})
        if style.logged:
            self._service.count(style, name, status, time.perf_counter() - started)

    def _refuse(self, error: ServingError) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
        headers = [(b"retry-after", str(error.retry_after).encode())] if error.retry_after else []
        body = error.body()
        if self._style.sagemaker:
            # boto3 makes its exceptions from this header.
            kind = b"ValidationError" if error.status == 404 else b"ModelError"
            headers.append((b"x-amzn-errortype", kind))
            body |= {"OriginalStatusCode": error.status, "OriginalMessage": error.message}
        return error.status, _dump(body), headers


def _internal(error: BaseException) -> ServingError:
    mark = uuid.uuid4().hex[:12]
    _log.error("request %s failed", mark, exc_info=error)
    return ServingError(f"The service failed. Look for {mark} in its log.", 500, "INTERNAL_ERROR")


async def _unexpected(_request: HttpRequest, error: Exception) -> Response:
    refused = _internal(error)
    return Response(_dump(refused.body()), refused.status, media_type=requests.JSON)


async def _http_error(_request: HttpRequest, error: Exception) -> Response:
    """Answer for unknown paths and methods in the same shape."""
    assert isinstance(error, HTTPException)  # noqa: S101 - as it is registered
    codes = {404: "ENDPOINT_NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}
    refused = ServingError(
        f"{error.detail}. /docs lists all paths and methods.",
        error.status_code,
        codes.get(error.status_code, "BAD_REQUEST"),
    )
    return Response(_dump(refused.body()), error.status_code, error.headers, requests.JSON)


def _status(view: View) -> str:
    if not view.started:
        return "starting"
    if any(served.error for served in view.models.values()) or view.mlflow_error is not None:
        return (
            "degraded"
            if any(served.loaded for served in view.models.values()) or not view.models
            else "failing"
        )
    return "ok" if view.models else "empty"


def _state(served: Served) -> dict[str, Any]:
    return {
        "version": served.loaded.version if served.loaded else None,
        "champion": served.champion.version,
        "loaded_at": served.loaded.loaded_at if served.loaded else None,
        "error": served.error,
    }


def _dump(content: object) -> bytes:
    """Return JSON of content that may hold any text from a caller, such as half a character."""
    try:
        return orjson.dumps(content)
    except TypeError:
        import json  # noqa: PLC0415 - for this rare case alone

        return json.dumps(content, default=str).encode()


def _json(content: object, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type=requests.JSON)
