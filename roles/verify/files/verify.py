"""The checks that `verify` runs on the host. Needs only Python's standard library.

The first argument is a JSON object with the settings; standard output is a JSON list of checks, each with
`title`, `state` (passed, failed or pending), `detail`, and the `unit` whose journal may tell more.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

# A worker's other processes start after the one that its unit waits for.
WORKER_SECONDS = 60

# The longest that a command in a container may take; what the engine itself answers takes less.
COMMAND_SECONDS = 110
ENGINE_SECONDS = 15

# Runs in the MLflow container, bypassing the server, with the server's permissions.
FIND_IN_STORE = """
import sys, urllib.parse
url = urllib.parse.urlsplit(sys.argv[1])
if url.scheme == "s3":
    import boto3
    found = boto3.client("s3").get_object(Bucket=url.netloc, Key=url.path.lstrip("/"))["Body"].read()
else:
    found = open(url.path, "rb").read()
sys.stdout.buffer.write(found)
"""

# Runs in the MLflow container, bypassing the server, with the server's own settings.
ASK_DATABASE = """
import os, sqlalchemy
engine = sqlalchemy.create_engine(os.environ["MLFLOW_BACKEND_STORE_URI"])
with engine.connect() as connection:
    runs = connection.scalar(sqlalchemy.text("select count(*) from runs"))
    tls = engine.dialect.name == "postgresql" and connection.scalar(
        sqlalchemy.text("select ssl from pg_stat_ssl where pid = pg_backend_pid()"))
engine.dispose()
url = engine.url
place = f"{url.host}:{url.port}/{url.database}" if url.host else url.database
print(engine.dialect.name, place, runs, "encrypted" if tls else "not encrypted", sep="|")
"""

# Runs in the app's container: the app itself, without a browser.
USE_THE_APP = """
from streamlit.testing.v1 import AppTest
app = AppTest.from_file("streamlit_app/app.py", default_timeout=60).run()
assert not app.exception, app.exception[0].message
next(button for button in app.button if button.label == "Predict").click()
app.run()
assert not app.exception, app.exception[0].message
print("\\n".join(metric.label + " " + metric.value for metric in app.metric))
"""


_PYTHON = ("python3", "-W", "ignore")
# If memory is short the kernel ends this rather than the service, and nothing outlives its time.
_SPARE_THE_SERVICE = 'echo 1000 >/proc/self/oom_score_adj; exec timeout 100 python3 -W ignore "$@"'
_KILLED = 137

# The REST service looks for new champions every few seconds, and a training may have just promoted one.
FOLLOW_SECONDS = 15


class CheckFailed(Exception):  # noqa: N818 (it reads as what it is)
    """A check found something wrong; the message says what."""


class NoMemory(CheckFailed):
    """A check that was killed; that says nothing of what it was to check."""


class Pending(Exception):  # noqa: N818
    """A check that cannot be made yet; the message says what to type first."""


def require(condition: object, message: str) -> None:
    """Fail the check with the message, unless the condition holds."""
    if not condition:
        raise CheckFailed(message)


def run(*command: str, text: str | None = None, seconds: float = COMMAND_SECONDS) -> str:
    """Run a command and return its output; if it fails, the error has its last lines."""
    try:
        done = subprocess.run(  # noqa: S603
            command,
            input=text,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CheckFailed(f"`{' '.join(command[:2])}` did not end within {seconds} s") from None
    if done.returncode == _KILLED:
        raise NoMemory("not enough memory to check")
    if done.returncode != 0:
        said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-10:])
        raise CheckFailed(said or f"`{' '.join(command[:2])}` ended with status {done.returncode}")
    return done.stdout.strip()


def request(url: str, *, method: str = "GET", body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    """Send an HTTP request and return status and body, whatever the status."""
    message = urllib.request.Request(url, data=body, method=method, headers=headers)  # noqa: S310
    try:
        with urllib.request.urlopen(message, timeout=30) as answer:  # noqa: S310
            return answer.status, answer.read()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read()


def run_beside(container: str, *arguments: str, text: str = "", setting: str = "PYTHONUTF8=1") -> str:
    """Run Python in the container of a service that must not suffer from it, and return its output."""
    command = ("docker", "exec", "-i", "--env", setting, container, "sh", "-c", _SPARE_THE_SERVICE, "sh")
    return run(*command, *arguments, text=text)


class Checks:
    """The checks, each a method whose docstring is its title and that returns one line of detail."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.mlflow = f"http://127.0.0.1:{settings['mlflow_port']}"
        self.app = f"http://127.0.0.1:{settings['streamlit_port']}"
        self.scheduler = f"http://127.0.0.1:{settings['dask_http_port']}"
        self.rest = f"http://127.0.0.1:{settings['scoring_port']}"
        self.champions: dict[str, str] = {}

    def api(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Call MLflow's REST API."""
        status, answer = request(
            f"{self.mlflow}/api/2.0/mlflow/{path}",
            method="POST",
            body=json.dumps(body).encode(),
            **{"Content-Type": "application/json"},
        )
        require(status == 200, f"{path}: expected status 200, got {status}: {answer[:300]!r}")
        return dict(json.loads(answer))

    def service_runs(self, unit: str) -> str:
        """Its unit is active and starts at boot."""
        run("systemctl", "is-enabled", "--quiet", unit, seconds=ENGINE_SECONDS)
        shown = ("systemctl", "show", "--property=ActiveState,SubState", "--value", unit)
        state = run(*shown, seconds=ENGINE_SECONDS).split()
        require(state == ["active", "running"], f"expected active running, got {' '.join(state)}")
        return "active, enabled"

    def container_is_closed(self, name: str) -> str:
        """Limits and read-only root are in force."""
        found = json.loads(run("docker", "inspect", name, seconds=ENGINE_SECONDS))[0]
        host = found["HostConfig"]
        wanted = {
            "runs": found["State"]["Running"],
            "read-only root": host["ReadonlyRootfs"],
            "no capabilities": host["CapDrop"] == ["ALL"] and not host["CapAdd"],
            "no new privileges": any(o.startswith("no-new-privileges") for o in host["SecurityOpt"] or []),
            "not root": found["Config"]["User"].split(":")[0] not in {"", "0", "root"},
            "memory limit": host["Memory"] > 0 and host["MemorySwap"] == host["Memory"],
            "cpu limit": host["NanoCpus"] > 0,
            "pids limit": (host["PidsLimit"] or 0) > 0,
        }
        missing = [what for what, holds in wanted.items() if not holds]
        require(not missing, f"not in force: {', '.join(missing)}")
        return f"{host['Memory'] >> 20} MiB, {host['NanoCpus'] / 1e9:g} cpu, {host['PidsLimit']} pids"

    def names_answer(self) -> str:
        """The API answers to every name that clients use, and to no other."""
        ports = sorted({self.settings["mlflow_port"], self.settings["mlflow_public_port"]})
        hosts = [f"{name}:{port}" for name in self.settings["mlflow_names"] for port in ports]
        for host in hosts:
            self.expect_status(host, f"http://{host}", 200)
        self.expect_status(f"elsewhere.example:{ports[0]}", "", 403)
        self.expect_status(hosts[0], "http://elsewhere.example", 403)
        return ", ".join(hosts)

    def expect_status(self, host: str, origin: str, expected: int) -> None:
        """Check the status of an experiment search with this Host and this browser Origin."""
        headers = {"Host": host, "Content-Type": "application/json"} | ({"Origin": origin} if origin else {})
        url = f"{self.mlflow}/api/2.0/mlflow/experiments/search"
        status, answer = request(url, method="POST", body=b'{"max_results": 1}', **headers)
        require(
            status == expected,
            f"Host {host}, Origin {origin or 'none'}: expected {expected}, got {status}: {answer[:200]!r}. "
            "Is the name in mlflow_names?",
        )

    def database_answers(self) -> str:
        """Metadata is in the configured database, which answers."""
        backend, place, runs, tls = run("docker", "exec", "mlflow", *_PYTHON, "-c", ASK_DATABASE).split("|")
        wanted = self.settings["backend"]
        require(backend == wanted, f"expected mlflow_backend = {wanted}, but the server runs on {backend}")
        return f"{backend} {place}, {runs} runs" + (f", {tls}" if backend == "postgresql" else "")

    def artifact_round_trip(self) -> str:
        """An artifact is written, found in the store, read back and deleted."""
        name = f"verify/{time.time_ns()}.txt"
        content = f"written by verify at {time.ctime()}".encode()
        url = f"{self.mlflow}/api/2.0/mlflow-artifacts/artifacts/{name}"
        store = "/data/artifacts" if self.settings["artifacts"] == "local" else self.settings["artifacts"]
        status, answer = request(url, method="PUT", body=content)
        require(status == 200, f"writing: expected status 200, got {status}: {answer[:300]!r}")
        try:
            found = run("docker", "exec", "-i", "mlflow", "python3", "-c", FIND_IN_STORE, f"{store}/{name}")
            require(found.encode() == content, f"{store}/{name}: expected {content!r}, got {found[:300]!r}")
            status, answer = request(url)
            require(
                (status, answer) == (200, content),
                f"reading back: expected status 200 and {content!r}, got {status}: {answer[:300]!r}",
            )
        finally:
            status, _ = request(url, method="DELETE")
        require(status == 200, f"deleting: expected status 200, got {status}")
        return f"{store}/{name}"

    def artifact_reads(self) -> str:
        """An artifact of a champion is read through the server."""
        if not self.champions:
            raise Pending("there is no champion yet")
        name, version = min(self.champions.items())
        query = urllib.parse.urlencode({"name": name, "version": version, "path": "MLmodel"})
        status, answer = request(f"{self.mlflow}/model-versions/get-artifact?{query}")
        require(
            (status, b"flavors:" in answer) == (200, True),
            f"MLmodel of {name} v{version}: expected status 200 and a description of it, "
            f"got {status}: {answer[:200]!r}",
        )
        return f"{name} v{version}"

    def training_has_run(self) -> str:
        """Training has left runs and a champion in MLflow."""
        models = self.api_get("registered-models/search?max_results=100").get("registered_models", [])
        self.champions = {
            model["name"]: alias["version"]
            for model in models
            for alias in model.get("aliases", [])
            if alias["alias"] == "champion"
        }
        if not self.champions:
            raise Pending(f"no model has been trained yet. Type: {self.settings['train_command']}")
        experiments = self.api("experiments/search", {"max_results": 100})["experiments"]
        query = {
            "experiment_ids": [experiment["experiment_id"] for experiment in experiments],
            "filter": "attributes.status = 'FINISHED'",
            "max_results": 1000,
        }
        runs = self.api("runs/search", query).get("runs", [])
        require(runs, "expected finished runs for the champions, found none")
        listed = ", ".join(f"{name} v{version}" for name, version in sorted(self.champions.items()))
        return f"{len(runs)} finished runs; champions: {listed}"

    def workers_are_connected(self) -> str:
        """Each worker's processes are connected to the scheduler."""
        wanted = self.settings["workers"]
        deadline = time.monotonic() + WORKER_SECONDS
        while True:
            status, answer = request(f"{self.scheduler}/json/identity.json")
            require(status == 200, f"the scheduler: expected status 200, got {status}: {answer[:300]!r}")
            workers = json.loads(answer)["workers"].values()
            found = Counter(str(worker["name"]).split()[0] for worker in workers)
            short = [host for host in wanted if found[host] < wanted[host]]
            if not short:
                return ", ".join(f"{host} {found[host]}" for host in wanted)
            told = ", ".join(f"{host} has {found[host]} of {wanted[host]}" for host in short)
            require(
                time.monotonic() < deadline,
                f"{told} processes connected. To see why, type there: sudo journalctl -u dask-worker -n 50",
            )
            time.sleep(1)

    def api_get(self, path: str) -> dict[str, Any]:
        """Read from MLflow's REST API."""
        status, answer = request(f"{self.mlflow}/api/2.0/mlflow/{path}")
        require(status == 200, f"{path}: expected status 200, got {status}: {answer[:300]!r}")
        return dict(json.loads(answer))

    def app_answers(self) -> str:
        """The app's page answers."""
        for path in ("/", "/_stcore/health"):
            status, _ = request(self.app + path)
            require(status == 200, f"{path}: expected status 200, got {status}")
        return self.app

    def app_predicts(self) -> str:
        """The app predicts with the champion loaded from MLflow."""
        if not self.champions:
            raise Pending("there is no champion to predict with yet")
        # Not logged, as it would look like traffic.
        return run_beside("streamlit", "-", text=USE_THE_APP, setting="MLSTACK_ACTIVITY_POLICY=off")

    def rest_answers(self) -> str:
        """The REST service is healthy and serves every champion."""
        for _ in range(FOLLOW_SECONDS):
            status, answer = request(f"{self.rest}/health")
            health = json.loads(answer) if answer.startswith(b"{") else {"status": answer[:300], "models": {}}
            served = {name: model["version"] for name, model in health["models"].items()}
            if health["status"] in {"ok", "empty"} and served == self.champions:
                return f"{self.rest}, {len(served)} models"
            time.sleep(1)
        raise CheckFailed(f"/health: expected every champion, got {status}: {answer[:600].decode()}")

    def rest_predicts(self) -> str:
        """The REST service predicts for a champion's own example."""
        if not self.champions:
            raise Pending("there is no champion to predict with yet")
        name = min(self.champions)
        path = f"/models/{urllib.parse.quote(name, safe='')}/invocations"
        description = json.loads(request(f"{self.rest}/openapi.json")[1])
        asked = description["paths"][path]["post"]["requestBody"]["content"]["application/json"]["example"]
        status, answer = request(
            self.rest + path,
            method="POST",
            body=json.dumps(asked).encode(),
            **{"Content-Type": "application/json", "Mlstack-Unlogged": "1"},
        )
        require(status == 200, f"{path}: expected status 200, got {status}: {answer[:300]!r}")
        answered = json.loads(answer)
        return f"{name} v{answered['model']['version']}: {answered['predictions'][0]}"

    def all(self, *, writing: bool = True) -> Iterator[tuple[str, str, Callable[[], str]]]:
        """Yield each check: title, unit whose journal may tell more, and what to call.

        Args:
            writing: Whether an artifact may be written and deleted. A bucket that keeps versions keeps it, so
                what is done every hour only reads one.
        """
        artifacts = self.artifact_round_trip if writing else self.artifact_reads
        for unit in self.settings["containers"]:
            for check in (self.service_runs, self.container_is_closed):
                yield f"{unit}: {check.__doc__}", unit, partial(check, unit)
        for unit, checks in {
            "mlflow": (self.names_answer, self.database_answers, artifacts),
            "trainer@manual": (self.training_has_run,),
            "streamlit": (self.app_answers, self.app_predicts),
            "scoring": (self.rest_answers, self.rest_predicts),
            "dask-scheduler": (self.workers_are_connected,) if self.settings["workers"] else (),
        }.items():
            for check in checks:
                yield str(check.__doc__), unit, check


def main() -> None:
    """Run all checks, even after one has failed, and print the result of each."""
    results = []
    for title, unit, check in Checks(json.loads(sys.argv[1])).all():
        result = {"title": title.rstrip("."), "unit": unit}
        try:
            result |= {"state": "passed", "detail": check()}
        except Pending as reason:
            result |= {"state": "pending", "detail": str(reason)}
        except Exception as error:  # noqa: BLE001 - one that breaks must not hide the others
            result |= {"state": "failed", "detail": str(error) or type(error).__name__}
        results.append(result)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
