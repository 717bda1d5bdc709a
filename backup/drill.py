"""Drill: start MLflow on a set, and compare it with the running one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager, suppress
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any

from backup.artifacts import checksum
from backup.database import ids_before, upgrade
from backup.sets import opened, read_list

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from backup.artifacts import Artifact
    from backup.sets import Host, Manifest, Sets

_RUNS, _ARTIFACTS = 20, 10  # how large the samples are
_START_SECONDS, _ANSWER_SECONDS = 120, 60


class DrillError(Exception):
    """A restored platform would not be what the running one was."""


def drill(sets: Sets, name: str, host: Host, live: str) -> str:
    """Restore a set into a folder of its own, start MLflow on it, and compare.

    What was added, changed or deleted on the running server since the set was made is no difference.

    Args:
        sets: Where the set is.
        name: Its name.
        host: Whose database and artifacts.
        live: Address of the running MLflow.

    Returns:
        What was compared, for people.

    Raises:
        DrillError: The set is empty, lacks what the running server had then, or differs.
        BackupError: There is no such set, or it is damaged.
        DatabaseError: Its database is damaged, or a later MLflow's.
    """
    with sets.opened(name) as (manifest, copy, artifacts), opened(manifest, copy) as url:
        if not manifest.content.counts["runs"]:
            raise DrillError(
                f"expected a backup with runs; got {name}, which has none: it would restore nothing."
            )
        _check_complete(manifest, url, host.database.url)
        upgrade(url)
        runs = _sample(
            [one for one in sorted(ids_before(url, then(manifest))) if one.startswith("run ")], _RUNS
        )
        sample = _sample(list(read_list(artifacts)), _ARTIFACTS)
        with serving(url, host.place) as started:
            restored, running = Server(started), Server(live)
            if (found := restored.counts()) != {key: manifest.content.counts[key] for key in found}:
                raise DrillError(f"expected {manifest.content.said} in backup {name}; MLflow shows {found}.")
            _compare_champions(manifest, restored, running)
            for run in runs:
                _compare_run(run.removeprefix("run "), restored, running)
            gone = _compare_artifacts(sample, host, (restored, running))
        if sample and gone == len(sample):
            raise DrillError(
                f"expected the artifacts of backup {name}; got none of {gone} that were looked for."
            )
    said = f" {gone} of these artifacts are gone since." if gone else ""
    return (
        f"MLflow starts on backup {name}, of {manifest.when}, with {manifest.content.said}. "
        f"The running one has the same {len(manifest.content.champions)} champions, {len(runs)} runs and "
        f"{len(sample)} artifacts of a sample.{said}"
    )


def then(manifest: Manifest) -> int:
    """Return when a set was made, in milliseconds since 1970."""
    return int(manifest.seconds * 1000)


class Server:
    """An MLflow server, asked over HTTP.

    Args:
        url: Its address.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def ask(self, path: str, **query: str) -> dict[str, Any]:
        """Ask the REST API; what it does not have is empty.

        Raises:
            DrillError: It does not answer.
        """
        found = self._get(f"/api/2.0/mlflow/{path}?{urllib.parse.urlencode(query)}")
        return dict(json.loads(found.read())) if found else {}

    def counts(self) -> dict[str, int]:
        """Count what can be counted without reading all of it."""
        asked = {
            "experiments": ("experiments/search", "experiments"),
            "models": ("registered-models/search", "registered_models"),
            "versions": ("model-versions/search", "model_versions"),
        }
        return {name: self._count(path, key) for name, (path, key) in asked.items()}

    def checksum(self, key: str) -> str:
        """Return the SHA-256 of an artifact; empty if there is none."""
        found = self._get(f"/api/2.0/mlflow-artifacts/artifacts/{urllib.parse.quote(key)}")
        if not found:
            return ""
        with found:
            return checksum(found)

    def _count(self, path: str, key: str) -> int:
        count, token = 0, ""
        while True:
            found = self.ask(path, max_results="1000", page_token=token)
            count += len(found.get(key, []))
            if not (token := found.get("next_page_token", "")):
                return count

    def _get(self, path: str) -> Any:  # noqa: ANN401 - an open response
        try:
            return urllib.request.urlopen(self._url + path, timeout=_ANSWER_SECONDS)  # noqa: S310
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise DrillError(f"expected an answer of {self._url}{path}; got {error}") from error
        except OSError as error:
            raise DrillError(f"expected an answer of {self._url}{path}; got {error}") from error


def _check_complete(manifest: Manifest, restored: str, live: str) -> None:
    """Make sure that all that the running server had then, and still has, is in the set."""
    missing = ids_before(live, then(manifest)) - ids_before(restored, then(manifest), deleted=True)
    if missing:
        few = ", ".join(sorted(missing)[:3])
        raise DrillError(
            f"expected in backup {manifest.name} all that MLflow had at {manifest.when}; "
            f"{len(missing)} are missing: {few}."
        )


def _compare_champions(manifest: Manifest, restored: Server, running: Server) -> None:
    for model, version in manifest.content.champions.items():
        alias = restored.ask("registered-models/alias", name=model, alias="champion").get("model_version", {})
        if alias.get("version") != version:
            raise DrillError(
                f"expected version {version} as {model}'s champion; MLflow shows {alias.get('version')}."
            )
        other = running.ask("model-versions/get", name=model, version=version).get("model_version")
        if other and (other["run_id"], other["source"]) != (alias["run_id"], alias["source"]):
            raise DrillError(
                f"expected version {version} of {model} to be that of the running MLflow; got another."
            )


def _compare_run(run: str, restored: Server, running: Server) -> None:
    here, there = (
        restored.ask("runs/get", run_id=run).get("run"),
        running.ask("runs/get", run_id=run).get("run"),
    )
    if not here:
        raise DrillError(f"expected run {run}; MLflow does not show it.")
    if there and (_facts(here) - _facts(there)):
        few = sorted(fact[0] for fact in _facts(here) - _facts(there))[:3]
        raise DrillError(f"expected run {run} as the running MLflow has it; it differs in {', '.join(few)}.")


def _compare_artifacts(sample: Sequence[Artifact], host: Host, servers: Sequence[Server]) -> int:
    """Compare the checksums of artifacts; return how many are gone for ever."""
    now = {found.key: found for found in host.artifacts.list()}
    gone = 0
    for artifact in sample:
        try:
            with host.artifacts.open(artifact) as content:
                kept = checksum(content)
        except FileNotFoundError:
            gone += 1
            continue
        # MLflow gives only what has not been changed or deleted since.
        if now.get(artifact.key) == artifact and {server.checksum(artifact.key) for server in servers} != {
            kept
        }:
            raise DrillError(f"expected artifact {artifact.key} as the store has it; MLflow gives another.")
    return gone


def _facts(run: dict[str, Any]) -> set[tuple[str, ...]]:
    """Return what can't change any more: parameters, and that a metric was logged, whatever its value now."""
    params = {(one["key"], one["value"]) for one in run["data"].get("params", [])}
    return (
        params
        | {(one["key"],) for one in run["data"].get("metrics", [])}
        | {("began", str(run["info"]["start_time"]))}
    )


def _sample[T](of: Sequence[T], most: int) -> list[T]:
    """Take some, evenly."""
    return [of[index * len(of) // most] for index in range(most)] if len(of) > most else list(of)


@contextmanager
def serving(database: str, artifacts: str) -> Iterator[str]:
    """Run MLflow for a moment on a database, at an address for SQLAlchemy; give its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = {
        "backend-store-uri": database,
        "artifacts-destination": artifacts,
        "host": "127.0.0.1",
    }
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += [word for name, value in options.items() for word in (f"--{name}", value)]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with TemporaryFile() as said:
        process = subprocess.Popen(  # noqa: S603 - a program of this image
            command, env=os.environ | quiet, stdout=said, stderr=said, start_new_session=True
        )
        try:
            _wait(process, f"http://127.0.0.1:{port}", said)
            yield f"http://127.0.0.1:{port}"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # it has worker processes, and nothing to lose
            process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, said: IO[bytes]) -> None:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(f"{url}/health", timeout=5).close()  # noqa: S310
        except OSError:
            time.sleep(0.5)
        else:
            return
    said.seek(0)
    last = " ".join(said.read().decode(errors="replace").splitlines()[-5:])
    raise DrillError(f"expected MLflow to start on the backup within {_START_SECONDS} s; it did not: {last}")
