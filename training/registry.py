"""Registry: versions of registered models, and which of them is champion.

Two aliases say who is who. ``champion`` is the version that answers; ``challenger`` is the newest candidate
that isn't champion: a promotion takes the alias off, a lost comparison leaves it on. Whoever follows an alias
finds a whole version: aliases are set after everything else.

Each version says in its tags how it was judged and who promoted it when (``previous_champion``: whom it
replaced). The registered model's tag ``champion_history`` lists the champions up to the present one; a
promotion adds to it and a rollback takes away, so that a second rollback goes further back, not to and fro.

Only client calls with explicit ids, as in tracking.py.
"""

import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import mlflow
import mlflow.artifacts
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from serving.contract import CHALLENGER, CHAMPION, ModelTag, VersionTag
from training.gate import Contender, Decision
from training.problem import Problem
from training.refusals import UsageError, did_you_mean
from training.results import Result

_REMEMBERED = 100  # champions in the history: a tag has a limited length
_ABSENT = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}


class RegistryError(UsageError):
    """A model or version that isn't there or can't be moved to; the message lists those that are."""


@dataclass(frozen=True)
class Registered:
    """A registered model in its present state.

    Attributes:
        name: Its name, the problem's.
        aliases: Version by alias.
        history: The champions up to the present one, oldest first.
        versions: All its versions by number, newest first.
    """

    name: str
    aliases: Mapping[str, str]
    history: tuple[str, ...]
    versions: Mapping[str, ModelVersion]

    @property
    def champion(self) -> str:
        """Version number of the champion; empty if there is none."""
        return self.aliases.get(CHAMPION, "")

    def ready(self, version: str) -> bool:
        """Whether the version exists and can be loaded."""
        return version in self.versions and self.versions[version].status == "READY"

    def describe(self, version: str) -> str:
        """Name a version for people; ``none`` where there is none."""
        known = self.versions.get(version)
        name = known.tags.get(VersionTag.ALGORITHM, "unknown") if known else "deleted"
        return f"version {version} ({name})" if version else "none"


@dataclass(frozen=True)
class Move:
    """How a champion was chosen by hand.

    Attributes:
        before: The registered model as it was.
        version: The version that is champion now.
    """

    before: Registered
    version: str

    @property
    def changed(self) -> bool:
        """Whether another version is champion now."""
        return self.version != self.before.champion


class Registry:
    """The model registry of one MLflow server.

    Args:
        uri: Tracking URI.
        code_version: Version of the code that trains.
    """

    def __init__(self, uri: str, code_version: str = "unknown") -> None:
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        if not uri.startswith(("http://", "https://")):
            mlflow.set_tracking_uri(uri)  # a store without a server looks its own models up there
        self._uri = uri
        self._client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        self._code_version = code_version

    def champion(self, name: str) -> Contender | None:
        """Return a model's present champion, which hasn't been asked for predictions, or None."""
        try:
            version = self._client.get_model_version_by_alias(name, CHAMPION)
        except MlflowException as error:
            if error.error_code in _ABSENT:
                return None
            raise
        tags = version.tags
        return Contender(
            str(version.version),
            tags.get(VersionTag.ALGORITHM, "unknown"),
            tags.get(VersionTag.DATA_DIGEST, ""),
        )

    def find(self, name: str) -> Registered:
        """Return a registered model with its versions.

        Raises:
            RegistryError: There is none of that name.
        """
        try:
            model = self._client.get_registered_model(name)
        except MlflowException as error:
            if error.error_code not in _ABSENT:
                raise
            raise RegistryError(self._no_model(name)) from None
        versions = self._client.search_model_versions(f"name='{name}'")
        return Registered(
            name,
            {alias: str(version) for alias, version in model.aliases.items()},
            tuple(model.tags.get(ModelTag.HISTORY, "").split()),
            {str(v.version): v for v in sorted(versions, key=lambda v: -int(v.version))},
        )

    def register(self, problem: Problem, result: Result, run_id: str, model_id: str) -> str:
        """Make a logged model the newest version of the problem's registered model, and its challenger.

        Returns:
            The new version number.

        Raises:
            MlflowException: The server refused; nothing is left of the version.
        """
        try:
            self._client.create_registered_model(problem.name, {"task": problem.task}, problem.description)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            self._client.update_registered_model(problem.name, problem.description)
        tags = {
            VersionTag.TASK: problem.task,
            VersionTag.METRIC: problem.metric,
            VersionTag.CV_SCORE: repr(result.mean),
            VersionTag.CV_STD: repr(result.std),
            VersionTag.HOLDOUT_SCORE: repr(result.holdout_score),
            VersionTag.ALGORITHM: result.algorithm,
            VersionTag.DATA_DIGEST: result.data_digest,
            VersionTag.CODE_VERSION: self._code_version,
        }
        version = self._client.create_model_version(
            problem.name,
            source=f"models:/{model_id}",
            run_id=run_id,
            tags=tags,
            model_id=model_id,
            await_creation_for=0,  # only Databricks makes versions in the background
        )
        try:
            self._client.set_registered_model_alias(problem.name, CHALLENGER, version.version)
        except MlflowException:
            with contextlib.suppress(MlflowException):  # the first error is the one to show
                self._client.delete_model_version(problem.name, version.version)
            raise
        return str(version.version)

    def download(self, name: str, version: str, folder: Path) -> Path:
        """Fetch a version's files, wherever MLflow keeps them.

        Args:
            name: The registered model.
            version: Its version number.
            folder: Where to; it must exist.

        Returns:
            The model's folder.

        Raises:
            MlflowException: The version doesn't exist, or its files can't be reached.
        """
        # Not by models:/..., which MLflow would look up at the process's own tracking URI.
        place = self._client.get_model_version_download_uri(name, version)
        return Path(mlflow.artifacts.download_artifacts(place, dst_path=str(folder), tracking_uri=self._uri))

    def record(self, name: str, version: str, decision: Decision) -> None:
        """Write the gate's decision on a version: tags for programs, the description for people."""
        self._tag(
            name,
            version,
            {**decision.numbers, VersionTag.GATE_AT: _now(), VersionTag.REASON: decision.reason},
        )
        self._client.update_model_version(name, version, decision.reason)

    def promote(self, name: str, version: str | None, *, by: str, reason: str) -> Move:
        """Make a version champion; where it is champion already, nothing changes.

        Args:
            name: The registered model.
            version: Its version number; the challenger's when None.
            by: Who wants it: a person, or ``gate``.
            reason: Why.

        Raises:
            RegistryError: The model, version or challenger doesn't exist, or isn't ready.
        """
        before = self.find(name)
        version = version or before.aliases.get(CHALLENGER)
        if version is None:
            raise RegistryError(
                f"{name} has no challenger: its newest candidate is champion, or none was trained. "
                f"Name a version (--version). {listing(before)}"
            )
        if version not in before.versions:
            raise RegistryError(f"{name} has no version {version}. {listing(before)}")
        if not before.ready(version):
            status = before.versions[version].status
            raise RegistryError(f"{name}: {before.describe(version)} isn't READY but {status}")
        if version != before.champion:
            history = [*before.history]
            if before.champion and history[-1:] != [before.champion]:
                history.append(before.champion)  # other hands than ours made it champion
            tags = {**_record(by, reason), VersionTag.PREVIOUS_CHAMPION: before.champion or "none"}
            self._move(before, version, [*history, version], tags)
        return Move(before, version)

    def rollback(self, name: str, *, by: str, reason: str) -> Move:
        """Make the champion before the present one champion again.

        Raises:
            RegistryError: The model, or an earlier champion of it, doesn't exist.
        """
        before = self.find(name)
        history = [version for version in before.history if before.ready(version)]
        while history[-1:] == [before.champion]:
            history.pop()
        if not history:
            raise RegistryError(
                f"{name} has nothing to roll back to: no earlier champion is known that still exists. "
                f"Name a version (--version). {listing(before)}"
            )
        version = history[-1]
        if before.champion in before.versions:
            text = f"to version {version} by {by} at {_now()}: {reason}"
            self._tag(name, before.champion, {VersionTag.ROLLED_BACK: text})
        self._move(before, version, history, _record(by, reason))
        return Move(before, version)

    def _move(self, before: Registered, version: str, history: list[str], tags: Mapping[str, str]) -> None:
        self._tag(before.name, version, tags)
        self._client.set_registered_model_alias(before.name, CHAMPION, version)
        # Bookkeeping after it, for a history that lacks the last move mends itself at the next one, but a
        # challenger that was lost before it became champion would have to be looked for.
        self._client.set_registered_model_tag(before.name, ModelTag.HISTORY, " ".join(history[-_REMEMBERED:]))
        if before.aliases.get(CHALLENGER) == version:
            self._client.delete_registered_model_alias(before.name, CHALLENGER)

    def _tag(self, name: str, version: str, tags: Mapping[str, str]) -> None:
        for key, value in tags.items():
            self._client.set_model_version_tag(name, version, key, value)

    def _no_model(self, name: str) -> str:
        names = sorted(model.name for model in self._client.search_registered_models(max_results=1000))
        if not names:
            return f"no model is registered yet; got {name!r}. Train one: python -m training.train_all_models"
        return f"expected one of {', '.join(names)}; got {name!r}.{did_you_mean(name, names)}"


def listing(model: Registered) -> str:
    """List a model's versions for people, newest first, a line each."""
    lines = []
    for number, version in model.versions.items():
        aliases = ", ".join(alias for alias, held in model.aliases.items() if held == number)
        tags = version.tags
        made = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(version.creation_timestamp / 1000))
        score = f"{tags.get('metric', '')} {tags.get('cv_score', '')[:8]}"
        lines.append(
            f"\n  {number:>4}  {made}  {tags.get('model', 'unknown'):<24}  {score:<36}  {aliases}".rstrip()
        )
    return f"It has{''.join(lines)}" if lines else "It has none"


def _record(by: str, reason: str) -> dict[str, str]:
    return {VersionTag.REASON: reason, VersionTag.PROMOTED_BY: by, VersionTag.PROMOTED_AT: _now()}


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
