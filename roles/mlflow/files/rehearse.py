"""Try an upgrade on a copy of the database, and ask a server what it must answer. Runs in the MLflow image.

    rehearse SECONDS MIGRATE SERVE APP    migrate a copy and ask the new server on it, which has SECONDS to
                                          start; the rest is the code of the role's other scripts
    ask                                   ask the server that runs

What must be answered is what the database holds, the one in MLFLOW_BACKEND_STORE_URI. Standard output is a
JSON object; standard error says what is wrong.
"""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NEWEST_RUNS, PAGE = 5, 100
# The copy, what is migrated and what is kept of it; a little more for the server.
COPIES, MORE_BYTES = 3, 64 << 20
LAST_LINES = 15
CONTENT = b"written by an upgrade, to be deleted by it"


class Refused(Exception):  # noqa: N818 (it reads as what it is)
    """The new release does not do what the old one does; the message says what."""


@dataclass(frozen=True)
class Held:
    """What a database holds, as far as a server is asked for it.

    Args:
        experiments: How many are active.
        runs: The newest, and how many metrics each has.
        models: The first of them by name, and the version that each alias of theirs stands for.
    """

    experiments: int
    runs: dict[str, int]
    models: dict[str, dict[str, str]]


def held(database: Path) -> Held:
    """Read from a database what a server on it must answer."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as opened:
        (experiments,) = opened.execute(
            "select count(*) from experiments where lifecycle_stage = 'active'"
        ).fetchone()
        runs = opened.execute(
            "select run_uuid, (select count(*) from latest_metrics where run_uuid = runs.run_uuid) from runs "
            "where lifecycle_stage = 'active' order by start_time desc limit ?",
            (NEWEST_RUNS,),
        ).fetchall()
        models: dict[str, dict[str, str]] = {
            name: {}
            # A prompt is one, too, but the server shows prompts apart.
            for (name,) in opened.execute(
                "select name from registered_models where name not in "
                "(select name from registered_model_tags where key = 'mlflow.prompt.is_prompt' and "
                "value = 'true') order by name limit ?",
                (PAGE,),
            )
        }
        for name, alias, number in opened.execute(
            "select name, alias, version from registered_model_aliases"
        ):
            if name in models:
                models[name][alias] = str(number)
    return Held(experiments, dict(runs), models)


def rehearse(seconds: float, migrating: str, serving: tuple[str, str], database: Path) -> dict[str, Any]:
    """Do to a copy what an upgrade does to the database.

    Args:
        seconds: How long the server may take to start.
        migrating: Code of migrate_sqlite.py.
        serving: Code of serve.py and app.py.
        database: The one to copy; a server may have it open.

    Returns:
        The database's schema before, what the server was asked for, and how many seconds its start took.

    Raises:
        Refused: The upgrade would fail.
    """
    folder = database.parent / "rehearsal"
    shutil.rmtree(folder, ignore_errors=True)
    _check_space(database)
    folder.mkdir()
    try:
        copy = folder / database.name
        with closing(sqlite3.connect(database)) as opened:
            (schema,) = opened.execute("select version_num from alembic_version").fetchone()
            opened.execute("vacuum into ?", (str(copy),))
        wanted = held(copy)
        environment = os.environ | {
            "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{copy}",
            "MLFLOW_ARTIFACTS_DESTINATION": str(folder / "artifacts"),
            "MLFLOW_HOST": "127.0.0.1",
        }
        begun = time.monotonic()
        _run([sys.executable, "-c", migrating, "migrate"], environment)
        migrated = time.monotonic() - begun
        with _server(serving, environment, folder / "log", seconds) as started:
            asked = ask(wanted)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {"schema": schema, "asked": asked, "migrated": round(migrated, 1), "started": round(started, 1)}


def ask(wanted: Held) -> str:
    """Ask the server what a verification asks, and whether it has all that its database holds.

    Returns:
        What it was asked for, in words.

    Raises:
        Refused: It answers otherwise.
    """
    found = _json("POST", "experiments/search", {"max_results": PAGE})["experiments"]
    _compare("experiments", min(wanted.experiments, PAGE), len(found))
    for run, metrics in wanted.runs.items():
        data = _json("GET", f"runs/get?run_id={run}")["run"]["data"]
        _compare(f"metrics of run {run}", metrics, len(data.get("metrics", [])))
    models = _json("GET", f"registered-models/search?max_results={PAGE}").get("registered_models", [])
    _compare("registered models", len(wanted.models), len(models))
    for name, aliases in wanted.models.items():
        for alias, number in aliases.items():
            query = urllib.parse.urlencode({"name": name, "alias": alias})
            answered = _json("GET", f"registered-models/alias?{query}")["model_version"]["version"]
            if answered != number:
                raise Refused(f"{name}@{alias}: expected version {number}; got {answered}")
    _ask_for_an_artifact()
    status, _ = _request("GET", "/api/2.0/mlflow/experiments/search?max_results=1", host="elsewhere.example")
    if status != 403:
        raise Refused(f"a request for another host's name: expected status 403; got {status}")
    return f"experiments: {len(found)}, runs: {len(wanted.runs)}, models: {len(models)}, an artifact"


def _ask_for_an_artifact() -> None:
    path = f"/api/2.0/mlflow-artifacts/artifacts/upgrade/{time.time_ns()}.txt"
    wanted = {"PUT": CONTENT, "GET": None, "DELETE": None}
    answers = {method: _request(method, path, body) for method, body in wanted.items()}
    for method, (status, answer) in answers.items():
        if status != 200:
            raise Refused(f"{method} of an artifact: expected status 200; got {status}: {answer[:300]!r}")
    if answers["GET"][1] != CONTENT:
        raise Refused(f"an artifact: expected {CONTENT!r}; got {answers['GET'][1][:300]!r}")


def _compare(what: str, expected: int, got: int) -> None:
    """Take more for an answer, too: a server that runs is written to."""
    if got < expected:
        raise Refused(f"{what}: expected {expected}, as in the database; got {got}")


def _json(method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    encoded = json.dumps(body).encode() if body else None
    status, answer = _request(method, f"/api/2.0/mlflow/{path}", encoded)
    if status != 200:
        raise Refused(f"{path}: expected status 200; got {status}: {answer[:300]!r}")
    return dict(json.loads(answer))


def _request(method: str, path: str, body: bytes | None = None, host: str = "") -> tuple[int, bytes]:
    """Ask under a name that the server answers to; return status and body, whatever the status."""
    host = host or os.environ.get("MLFLOW_SERVER_ALLOWED_HOSTS", "localhost").split(",")[0]
    message = urllib.request.Request(
        f"http://127.0.0.1:{os.environ.get('MLFLOW_PORT', '5000')}{path}",
        data=body,
        method=method,
        headers={"Host": host, "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(message, timeout=30) as answer:  # noqa: S310
            return answer.status, answer.read()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read()


@contextmanager
def _server(
    serving: tuple[str, str], environment: Mapping[str, str], log: Path, seconds: float
) -> Iterator[float]:
    """Run a server; the value is how many seconds its start took."""
    begun = time.monotonic()
    with log.open("wb") as file:
        server = subprocess.Popen(  # noqa: S603 - our own arguments
            [sys.executable, "-c", *serving], env=environment, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        while not _is_healthy():
            if server.poll() is not None:
                raise Refused(f"the server ended with {server.returncode} at its start:\n{_end(log)}")
            if time.monotonic() - begun > seconds:
                raise Refused(f"the server did not answer within {seconds:g} s:\n{_end(log)}")
            time.sleep(0.1)
        yield time.monotonic() - begun
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _is_healthy() -> bool:
    try:
        return _request("GET", "/health")[0] == 200
    except OSError:
        return False


def _end(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").strip().splitlines()[-LAST_LINES:])


def _run(command: list[str], environment: Mapping[str, str]) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise Refused(f"the migration failed: {done.stderr.strip()}")


def _check_space(database: Path) -> None:
    log = database.with_name(f"{database.name}-wal")
    size = sum(path.stat().st_size for path in (database, log) if path.exists())
    needed, free = COPIES * size + MORE_BYTES, shutil.disk_usage(database.parent).free
    if free < needed:
        raise Refused(
            f"expected {needed >> 20} MiB of free space beside {database}, for copies; got {free >> 20}. "
            "Delete old copies (before-*.db) there, or enlarge the disk."
        )


def main() -> int:
    """Carry out the action that the command line names."""
    database = Path(os.environ["MLFLOW_BACKEND_STORE_URI"].removeprefix("sqlite:///"))
    action, *arguments = sys.argv[1:]
    try:
        if action == "ask":
            found: dict[str, Any] = {"asked": ask(held(database))}
        else:
            seconds, migrating, serve, app = arguments
            found = rehearse(float(seconds), migrating, (serve, app), database)
    except (Refused, sqlite3.Error, OSError, KeyError, ValueError) as error:
        print(error if isinstance(error, Refused) else f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
