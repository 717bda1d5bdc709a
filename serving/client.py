"""MLflow read over its REST API, for app and REST service: its own client takes 40 MiB and seconds to import.

One client serves a whole process: connections are pooled, any thread may use it, and a
request takes seconds at most, because a person is waiting.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, Self
from urllib.parse import quote, urlsplit

import urllib3

from serving.contract import CHAMPION
from serving.errors import AbsentError, ArtifactsUnreachableError, RegistryAwayError, said

_API = "/api/2.0/mlflow"
_ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
_PAGE = 1000
_CHUNK = 1 << 20
_CONNECTIONS = 8  # kept open; more are made when needed
_QUERY_SECONDS = 4.0
_FILE_SECONDS = 20.0  # MLflow fetches a file from its store before the first byte comes


@dataclass(frozen=True)
class Champion:
    """The version that a registered model's alias points to.

    Attributes:
        name: The registered model.
        version: The version.
        model_created: When the registered model was made, in milliseconds; a name that was deleted and made
            again counts its versions from 1 again.
    """

    name: str
    version: str
    model_created: int


@dataclass(frozen=True)
class RegisteredModel:
    """A name in the registry.

    Attributes:
        name: The name.
        description: What people wrote about it.
        created: When it was made, in milliseconds.
        aliases: Version by alias.
    """

    name: str
    description: str
    created: int
    aliases: Mapping[str, str]


@dataclass(frozen=True)
class ModelVersion:
    """One version of a registered model; `run_id` is empty where no run made it."""

    name: str
    number: str
    created: datetime
    run_id: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Dataset:
    """A table that a run used; `source` and `profile` are JSON, as MLflow keeps them."""

    name: str
    digest: str
    source: str
    profile: str


@dataclass(frozen=True)
class Run:
    """A run, with what was logged to it."""

    id: str
    experiment_id: str
    started: datetime
    artifact_uri: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    datasets: tuple[Dataset, ...]


class Client:
    """One MLflow server, which must proxy its artifacts (`mlflow server` does by default).

    Args:
        tracking_uri: Where MLflow answers: http or https.
        username: For MLflow's basic authentication, if it has one.
        password: The same.
        timeout: Seconds to wait for an answer, twice at most.

    Raises:
        ValueError: The address is neither http nor https.
    """

    def __init__(
        self,
        tracking_uri: str,
        username: str | None = None,
        password: str | None = None,
        timeout: float = _QUERY_SECONDS,
    ) -> None:
        if urlsplit(tracking_uri).scheme not in ("http", "https"):
            raise ValueError(
                f"Expected MLflow at an http or https address; got {tracking_uri!r}. Set MLFLOW_TRACKING_URI."
            )
        self.tracking_uri = tracking_uri.rstrip("/")
        self._query = urllib3.Timeout(connect=min(4.0, timeout), read=timeout)
        self._file = urllib3.Timeout(connect=min(4.0, timeout), read=max(_FILE_SECONDS, timeout))
        self._http = urllib3.PoolManager(
            headers=urllib3.make_headers(basic_auth=f"{username}:{password or ''}") if username else {},
            # Once more, for the other end may have closed a pooled connection. All requests only read.
            retries=urllib3.Retry(1, redirect=0, allowed_methods=None, backoff_factor=0.1),
            maxsize=_CONNECTIONS,
        )

    @classmethod
    def from_environment(cls) -> Self:
        """Read MLflow's own variables: MLFLOW_TRACKING_URI, _USERNAME, _PASSWORD, _HTTP_REQUEST_TIMEOUT.

        Raises:
            ValueError: The address or the timeout is invalid.
        """
        return cls(
            os.environ.get("MLFLOW_TRACKING_URI") or "http://localhost:5000",
            os.environ.get("MLFLOW_TRACKING_USERNAME"),
            os.environ.get("MLFLOW_TRACKING_PASSWORD"),
            float(os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT") or _QUERY_SECONDS),
        )

    def registered_models(self) -> list[RegisteredModel]:
        """List all registered models by name: one request for up to a thousand.

        Raises:
            RegistryAwayError: MLflow did not answer.
        """
        found = self._pages("registered-models/search", "registered_models", order_by="name ASC")
        return [
            RegisteredModel(
                model["name"],
                model.get("description") or "",
                int(model.get("creation_timestamp") or 0),
                {alias["alias"]: str(alias["version"]) for alias in model.get("aliases", [])},
            )
            for model in found
        ]

    def champions(self) -> dict[str, Champion]:
        """List the champions by registered model.

        Raises:
            RegistryAwayError: MLflow did not answer.
        """
        return {
            model.name: Champion(model.name, model.aliases[CHAMPION], model.created)
            for model in self.registered_models()
            if CHAMPION in model.aliases
        }

    def versions(self, name: str) -> list[ModelVersion]:
        """List the versions of a registered model, newest first.

        Raises:
            RegistryAwayError: MLflow did not answer.
        """
        # A filter can't escape its own quote, but LIKE has a wildcard for one character.
        query = f"name LIKE '{name.replace("'", '_')}'" if "'" in name else f"name = '{name}'"
        found = self._pages("model-versions/search", "model_versions", filter=query)
        versions = [_version(version) for version in found if version["name"] == name]
        return sorted(versions, key=lambda version: -int(version.number))

    def version(self, name: str, number: str) -> ModelVersion:
        """Return one version.

        Raises:
            AbsentError: It doesn't exist.
            RegistryAwayError: MLflow did not answer.
        """
        return _version(self._json(f"{_API}/model-versions/get", name=name, version=number)["model_version"])

    def download(self, name: str, number: str, folder: Path) -> None:
        """Fetch a version's files.

        Args:
            name: The registered model.
            number: Its version.
            folder: Where to; it must exist.

        Raises:
            AbsentError: The version doesn't exist.
            ArtifactsUnreachableError: MLflow does not serve its files.
            RegistryAwayError: MLflow did not answer.
        """
        root = self._place(name, number)
        for path in self._files(root):
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                for part in self._stream(root / path):
                    file.write(part)

    def read(self, name: str, number: str, path: str) -> bytes:
        """Fetch one of a version's files.

        Raises:
            AbsentError: The version or file doesn't exist.
            ArtifactsUnreachableError: MLflow does not serve its files.
            RegistryAwayError: MLflow did not answer.
        """
        return b"".join(self._stream(self._place(name, number) / path))

    def experiment(self, name: str) -> str | None:
        """Return an experiment's id; None if there is none of that name.

        Raises:
            RegistryAwayError: MLflow did not answer.
        """
        try:
            found = self._json(f"{_API}/experiments/get-by-name", experiment_name=name)
        except AbsentError:
            return None
        return str(found["experiment"]["experiment_id"])

    def runs(self, experiment_id: str, query: str, order_by: Sequence[str], most: int) -> list[Run]:
        """Search an experiment's runs, by MLflow's filter language.

        Raises:
            RegistryAwayError: MLflow did not answer.
        """
        asked = {
            "experiment_ids": [experiment_id],
            "filter": query,
            "order_by": order_by,
            "max_results": most,
        }
        return [_run(run) for run in self._json(f"{_API}/runs/search", body=asked).get("runs", [])]

    def run(self, run_id: str) -> Run:
        """Return a run.

        Raises:
            AbsentError: It doesn't exist.
            RegistryAwayError: MLflow did not answer.
        """
        return _run(self._json(f"{_API}/runs/get", run_id=run_id)["run"])

    def run_files(self, run: Run, folder: str) -> list[str]:
        """List what a run logged in one of its folders, as paths to `read_run_file`.

        Raises:
            ArtifactsUnreachableError: MLflow does not serve its files.
            RegistryAwayError: MLflow did not answer.
        """
        root = _proxied(run.artifact_uri)
        return [str(PurePosixPath(folder) / path) for path in self._files(root / folder)]

    def read_run_file(self, run: Run, path: str) -> bytes:
        """Fetch a file that a run logged.

        Raises:
            AbsentError: It doesn't exist.
            ArtifactsUnreachableError: MLflow does not serve its files.
            RegistryAwayError: MLflow did not answer.
        """
        return b"".join(self._stream(_proxied(run.artifact_uri) / path))

    def _place(self, name: str, number: str) -> PurePosixPath:
        answer = self._json(f"{_API}/model-versions/get-download-uri", name=name, version=number)
        return _proxied(answer["artifact_uri"])

    def _files(self, root: PurePosixPath, below: PurePosixPath | None = None) -> Iterator[PurePosixPath]:
        below = below or PurePosixPath()
        answer = self._json(_ARTIFACTS, path=str(root / below))
        for entry in answer.get("files", []):
            # The last part only: what it leads to stays below the root.
            name = PurePosixPath(entry["path"]).name
            if name in ("", ".", ".."):
                continue
            if entry.get("is_dir"):
                yield from self._files(root, below / name)
            else:
                yield below / name

    def _pages(self, place: str, key: str, **query: str) -> Iterator[dict[str, Any]]:
        token = ""
        while True:
            answer = self._json(f"{_API}/{place}", max_results=str(_PAGE), page_token=token, **query)
            yield from answer.get(key, [])
            token = answer.get("next_page_token") or ""
            if not token:
                return

    def _json(self, place: str, /, *, body: object = None, **query: str) -> Any:  # noqa: ANN401 - any JSON
        response = self._ask(place, query, body=body)
        try:
            return json.loads(response.data)
        except ValueError as error:
            raise RegistryAwayError(
                f"Expected MLflow at `{self.tracking_uri}`; got an answer that is not JSON."
                " Check what listens there."
            ) from error

    def _stream(self, path: PurePosixPath) -> Iterator[bytes]:
        try:
            with self._ask(f"{_ARTIFACTS}/{quote(str(path))}", stream=True) as response:
                yield from response.stream(_CHUNK)
        except urllib3.exceptions.HTTPError as error:
            raise self._away(said(error)) from error

    def _ask(
        self,
        place: str,
        query: Mapping[str, str] | None = None,
        *,
        body: object = None,
        stream: bool = False,
    ) -> urllib3.BaseHTTPResponse:
        url = self.tracking_uri + place
        timeout = self._file if stream else self._query
        try:
            if body is not None:
                response = self._http.request("POST", url, json=body, timeout=timeout)
            else:
                fields = {name: value for name, value in (query or {}).items() if value}
                response = self._http.request(
                    "GET", url, fields=fields, preload_content=not stream, timeout=timeout
                )
        except urllib3.exceptions.HTTPError as error:
            raise self._away(said(error)) from error
        if response.status == 200:
            return response
        text = response.data.decode(errors="replace")[:400]
        if response.status == 404 and "RESOURCE_DOES_NOT_EXIST" in text:
            raise AbsentError(f"MLflow at `{self.tracking_uri}` has no such thing.", text)
        raise self._away(f"status {response.status}: {text}")

    def _away(self, detail: str) -> RegistryAwayError:
        return RegistryAwayError(f"MLflow at `{self.tracking_uri}` is not answering.", detail)


def _proxied(uri: str) -> PurePosixPath:
    """Return the path under which MLflow itself serves the files."""
    parts = urlsplit(uri)
    if parts.scheme != "mlflow-artifacts":
        raise ArtifactsUnreachableError(
            f"Expected files behind MLflow (mlflow-artifacts:); got {parts.scheme or 'file'}:."
            " Run MLflow with --serve-artifacts, and train again."
        )
    return PurePosixPath(parts.path.lstrip("/"))


def _version(found: Mapping[str, Any]) -> ModelVersion:
    return ModelVersion(
        found["name"],
        str(found["version"]),
        _moment(found["creation_timestamp"]),
        found.get("run_id") or "",
        _pairs(found.get("tags", [])),
    )


def _run(found: Mapping[str, Any]) -> Run:
    info, data = found["info"], found.get("data", {})
    return Run(
        info["run_id"],
        str(info["experiment_id"]),
        _moment(info["start_time"]),
        info["artifact_uri"],
        _pairs(data.get("params", [])),
        {metric["key"]: float(metric["value"]) for metric in data.get("metrics", [])},
        _pairs(data.get("tags", [])),
        tuple(
            Dataset(table["name"], table["digest"], table.get("source", ""), table.get("profile", ""))
            for table in (used["dataset"] for used in found.get("inputs", {}).get("dataset_inputs", []))
        ),
    )


def _pairs(found: Sequence[Mapping[str, str]]) -> dict[str, str]:
    return {pair["key"]: pair.get("value", "") for pair in found}


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC)
