"""MLflow's registry over its REST API: its own client takes 40 MiB and seconds to import."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Self
from urllib.parse import quote, urlsplit

import urllib3

from serving.contract import CHAMPION

_API = "/api/2.0/mlflow"
_ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
_PAGE = 1000
_CHUNK = 1 << 20


class RegistryAwayError(Exception):
    """MLflow can't be reached, or refuses to answer; the message says which."""


class ArtifactsUnreachableError(Exception):
    """A version's files can't be fetched through MLflow."""


@dataclass(frozen=True)
class Champion:
    """The version that a registered model's alias points to.

    Attributes:
        name: The registered model.
        version: The version.
        model_created: When the registered model was made, in milliseconds; a name that was deleted and made
            anew counts its versions from 1 again.
    """

    name: str
    version: str
    model_created: int


class Registry:
    """The registry of one MLflow server, which must proxy its artifacts (`mlflow server` does by default).

    Args:
        tracking_uri: Where MLflow answers: http or https.
        username: For MLflow's basic authentication, if it has one.
        password: The same.
        timeout: Seconds to wait for an answer.
    """

    def __init__(
        self,
        tracking_uri: str,
        username: str | None = None,
        password: str | None = None,
        timeout: float = 10.0,
    ) -> None:
        if urlsplit(tracking_uri).scheme not in ("http", "https"):
            raise ValueError(f"MLflow must be an http or https address; got {tracking_uri!r}.")
        self.tracking_uri = tracking_uri.rstrip("/")
        headers = urllib3.make_headers(basic_auth=f"{username}:{password or ''}") if username else {}
        self._http = urllib3.PoolManager(
            headers=headers, timeout=urllib3.Timeout(connect=4.0, read=timeout), retries=False, maxsize=2
        )

    @classmethod
    def from_environment(cls) -> Self:
        """Reads MLflow's own variables: MLFLOW_TRACKING_URI, _USERNAME and _PASSWORD."""
        return cls(
            os.environ.get("MLFLOW_TRACKING_URI") or "http://localhost:5000",
            os.environ.get("MLFLOW_TRACKING_USERNAME"),
            os.environ.get("MLFLOW_TRACKING_PASSWORD"),
        )

    def champions(self) -> dict[str, Champion]:
        """Lists the models that have a champion, by name: one request for up to a thousand.

        Raises:
            RegistryAwayError: MLflow did not answer.
        """
        found: dict[str, Champion] = {}
        token = ""
        while True:
            answer = self._json(f"{_API}/registered-models/search", max_results=str(_PAGE), page_token=token)
            for model in answer.get("registered_models", []):
                for alias in model.get("aliases", []):
                    if alias["alias"] == CHAMPION:
                        created = int(model.get("creation_timestamp") or 0)
                        found[model["name"]] = Champion(model["name"], str(alias["version"]), created)
            token = answer.get("next_page_token") or ""
            if not token:
                return found

    def download(self, name: str, version: str, folder: Path) -> None:
        """Fetches a version's files.

        Args:
            name: The registered model.
            version: Its version.
            folder: Where to; it must exist.

        Raises:
            RegistryAwayError: MLflow did not answer.
            ArtifactsUnreachableError: The files are not reached through MLflow.
        """
        answer = self._json(f"{_API}/model-versions/get-download-uri", name=name, version=version)
        uri = urlsplit(answer["artifact_uri"])
        if uri.scheme != "mlflow-artifacts":
            raise ArtifactsUnreachableError(
                f"its files are at {uri.scheme or 'file'}:, and not behind MLflow (mlflow-artifacts:)"
            )
        root = PurePosixPath(uri.path.lstrip("/"))
        for path in self._files(root):
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            where = f"{_ARTIFACTS}/{quote(str(root / path))}"
            try:
                with self._get(where, stream=True) as response, target.open("wb") as file:
                    for part in response.stream(_CHUNK):
                        file.write(part)
            except urllib3.exceptions.HTTPError as error:
                raise RegistryAwayError(f"MLflow stopped answering: {error}") from error

    def _files(self, root: PurePosixPath, below: PurePosixPath | None = None) -> Iterator[PurePosixPath]:
        below = below or PurePosixPath()
        answer = self._json(_ARTIFACTS, path=str(root / below))
        for entry in answer.get("files", []):
            name = PurePosixPath(
                entry["path"]
            ).name  # the last part only: what it leads to stays below the root
            if name in ("", ".", ".."):
                continue
            if entry.get("is_dir"):
                yield from self._files(root, below / name)
            else:
                yield below / name

    def _json(self, place: str, /, **query: str) -> Any:  # noqa: ANN401 - any JSON
        try:
            return json.loads(self._get(place, query).data)
        except json.JSONDecodeError as error:
            raise RegistryAwayError(f"what answers at {self.tracking_uri} is not MLflow") from error

    def _get(
        self, place: str, query: dict[str, str] | None = None, *, stream: bool = False
    ) -> urllib3.BaseHTTPResponse:
        try:
            response = self._http.request(
                "GET",
                self.tracking_uri + place,
                fields={name: value for name, value in (query or {}).items() if value},
                preload_content=not stream,
            )
        except urllib3.exceptions.HTTPError as error:
            raise RegistryAwayError(
                f"MLflow at {self.tracking_uri} does not answer ({type(error).__name__})"
            ) from error
        if response.status != 200:
            response.drain_conn()
            raise RegistryAwayError(f"MLflow at {self.tracking_uri} answers with status {response.status}")
        return response
