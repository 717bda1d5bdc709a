"""The champions of a registry: followed, kept on disk and in memory, and swapped when they change."""

import logging
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson

from serving.client import Champion, Client
from serving.errors import ExplainedError, ModelUnusableError, RegistryAwayError
from serving.memory import settle
from serving.model import LoadedModel, load

POLL_SECONDS = 2.0

_RETRY_POLLS = 60  # a version that failed is tried again after so many polls
_STATE = "champions.json"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Served:
    """A registered model: what answers for it, and what should but can't.

    Attributes:
        champion: What the registry's alias points to.
        loaded: What answers; the version before, if the champion can't be loaded, or None.
        error: Why the champion can't be loaded.
        previous: The version that answered before this one.
    """

    champion: Champion
    loaded: LoadedModel | None = None
    error: str | None = None
    previous: str | None = None


@dataclass(frozen=True)
class View:
    """The state at one moment. It is replaced as a whole and never changed, so a request can rely on its own.

    Attributes:
        models: By name.
        mlflow_error: Why MLflow does not answer; None while it does.
        checked_at: When MLflow last answered.
        started: Whether the first look at disk and registry is over.
    """

    models: Mapping[str, Served]
    mlflow_error: str | None = None
    checked_at: datetime | None = None
    started: bool = False


class Store:
    """The champions of a registry, on disk and loaded.

    Args:
        client: MLflow, where they come from.
        folder: Where they are kept, by name and version, so that a start needs no MLflow.
        poll_seconds: How long between two looks at the registry.

    Attributes:
        view: What is loaded now.
        failures: How often a model's champion could not be loaded, by the model's name.
    """

    def __init__(
        self,
        client: Client,
        folder: Path,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self.view = View({})
        self.failures: Counter[str] = Counter()
        self._client = client
        self._folder = folder
        self._poll_seconds = poll_seconds
        self._failed_polls: dict[Champion, int] = {}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="registry", daemon=True)

    def start(self) -> None:
        """Start following the registry, in a thread of its own."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for left_over in self._folder.glob("*/.*"):
            shutil.rmtree(left_over, ignore_errors=True)
        self._thread.start()

    def close(self) -> None:
        """Stop following; what is loaded stays."""
        self._ending.set()
        self._thread.join(timeout=30)

    def _run(self) -> None:
        self._restore()
        while True:
            try:
                self.poll()
            except Exception as error:  # noqa: BLE001 - what is loaded must go on, and so must this
                _log.exception("The registry could not be followed.")
                self.view = replace(self.view, mlflow_error=f"{type(error).__name__}: see the log")
            if not self.view.started:
                self.view = replace(self.view, started=True)
                settle()
            if self._ending.wait(self._poll_seconds):
                return

    def poll(self) -> None:
        """Ask the registry once, and load what is new."""
        try:
            champions = self._client.champions()
        except RegistryAwayError as error:
            if self.view.mlflow_error is None:
                _log.warning("%s Serving what is loaded. %s", error, error.detail)
            self.view = replace(self.view, mlflow_error=f"{error} {error.detail}")
            return
        if self.view.mlflow_error is not None:
            _log.info("MLflow answers again.")
        gone = self.view.models.keys() - champions.keys()
        kept = {name: served for name, served in self.view.models.items() if name not in gone}
        self.view = replace(self.view, models=kept, mlflow_error=None, checked_at=datetime.now(UTC))
        for name in gone:
            _log.info("%s no longer has a champion.", name)
            shutil.rmtree(self._home(name), ignore_errors=True)
        changed = [champion for champion in champions.values() if self._is_news(champion)]
        for champion in changed:
            self._follow(champion)
        if gone or changed:
            self._remember()
            if self.view.started:
                settle()

    def _is_news(self, champion: Champion) -> bool:
        served = self.view.models.get(champion.name)
        if served is None or served.champion != champion:
            self._failed_polls.pop(champion, None)
            return True
        if served.error is None:
            return False
        # What failed may have been the network or the disk.
        self._failed_polls[champion] = self._failed_polls.get(champion, 0) + 1
        return self._failed_polls[champion] % _RETRY_POLLS == 0

    def _follow(self, champion: Champion) -> None:
        """Load a champion while the old version answers, and swap it in; if that fails, the old one stays."""
        before = self.view.models.get(champion.name)
        try:
            loaded = load(self._fetch(champion), champion.name, champion.version)
        except (ExplainedError, OSError) as error:
            _log.warning("%s version %s is not served: %s", champion.name, champion.version, error)
            self.failures[champion.name] += 1
            if isinstance(error, ModelUnusableError):  # its files may be incomplete: fetch them again
                shutil.rmtree(
                    self._home(champion.name) / quote(champion.version, safe=""), ignore_errors=True
                )
            self._swap(
                replace(before, champion=champion, error=str(error))
                if before
                else Served(champion, error=str(error))
            )
            return
        old = before.loaded if before else None
        previous = before.previous if before else None
        if old is not None and old.version != loaded.version:
            previous = old.version
        self._swap(Served(champion, loaded, previous=previous))
        _log.info("%s version %s is served now.", champion.name, champion.version)
        self._prune(champion.name, {loaded.version, previous})

    def _swap(self, served: Served) -> None:
        self.view = replace(self.view, models={**self.view.models, served.champion.name: served})

    def _fetch(self, champion: Champion) -> Path:
        """Return the folder of a version on disk: whole, or not there."""
        home = self._home(champion.name)
        folder = home / quote(champion.version, safe="")
        mark = folder / ".mlstack.json"
        if mark.is_file():
            if orjson.loads(mark.read_bytes()) == asdict(champion):
                return folder
            shutil.rmtree(folder)  # belongs to another model that had this name
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home, prefix=".new-", ignore_cleanup_errors=True) as new:
            content = Path(new) / "content"
            content.mkdir()
            self._client.download(champion.name, champion.version, content)
            (content / mark.name).write_bytes(orjson.dumps(champion))
            content.rename(folder)
        return folder

    def _home(self, name: str) -> Path:
        return self._folder / quote(name, safe="").replace(".", "%2E")  # a name may be ".."

    def _prune(self, name: str, keep: set[str | None]) -> None:
        kept = {quote(version, safe="") for version in keep if version}
        for folder in self._home(name).iterdir():
            if folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    def _remember(self) -> None:
        """Write the list of served versions, for a start without MLflow."""
        answering = [
            {"champion": asdict(replace(s.champion, version=s.loaded.version)), "previous": s.previous}
            for s in self.view.models.values()
            if s.loaded
        ]
        new = self._folder / f"{_STATE}.new"
        try:
            new.write_bytes(orjson.dumps(answering))
            new.replace(self._folder / _STATE)
        except OSError as error:
            _log.warning(
                "The list of served versions can't be written, so the next start will need MLflow: %s", error
            )

    def _restore(self) -> None:
        """Load the versions that were served when this service last ran."""
        try:
            entries: list[dict[str, Any]] = orjson.loads((self._folder / _STATE).read_bytes())
            champions = [(Champion(**entry["champion"]), entry["previous"]) for entry in entries]
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, KeyError) as error:
            _log.warning("The list of versions served before can't be read: %s", error)
            return
        for champion, previous in champions:
            try:
                folder = self._home(champion.name) / quote(champion.version, safe="")
                loaded = load(folder, champion.name, champion.version)
            except ModelUnusableError as error:
                _log.warning(
                    "%s version %s can't be loaded from disk: %s", champion.name, champion.version, error
                )
                continue
            self._swap(Served(champion, loaded, previous=previous))
