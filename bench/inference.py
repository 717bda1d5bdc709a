"""How many one-row predictions a second: our service, and `mlflow models serve` with the same model.

Both run side by side, and are asked in turns over 4 connections, for one row of 30 features. Run it from the
project's folder:

    .venv/bin/python bench/inference.py --seconds 5 --rounds 3

It trains the model first, against an MLflow server of its own. The last line is ``ratio: N``: our requests a
second over MLflow's.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import orjson
from mlflow_server import ROOT, server
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(ROOT))

from scoring import requests
from serving.client import Client
from serving.model import LoadedModel, load, prepare_process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_MODEL = "breast_cancer"
_CONNECTIONS = 4
_START_SECONDS = 300


def main() -> int:
    """Measure both and print the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5, help="of each round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="for each of the two (default: %(default)s)")
    parser.add_argument(
        "--algorithm",
        default="logistic_regression",
        help="algorithm to train and serve (default: %(default)s)",
    )
    options = parser.parse_args()
    prepare_process()
    with tempfile.TemporaryDirectory(prefix="mlstack-bench-") as folder, server(Path(folder)) as uri:
        _train(uri, options.algorithm)
        files = Path(folder) / "model"
        files.mkdir()
        Client(uri).download(_MODEL, "1", files)
        model = load(files, _MODEL, "1")
        body = _one_row(model)
        environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # where MLflow looks for uvicorn
            "MLFLOW_TRACKING_URI": uri,
            "MLSTACK_SCORING_DATA": f"{folder}/models",
            "MLSTACK_ACTIVITY_FILE": f"{folder}/predictions.sqlite",  # as on a host
        }
        ours = [sys.executable, "-m", "scoring", "--port"]
        theirs = [
            *(sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"),
            *("--model-uri", f"models:/{_MODEL}/1", "--port"),
        ]
        with (
            _process(ours, environment, Path(folder) / "ours.log") as our_port,
            _process(theirs, environment, Path(folder) / "theirs.log") as their_port,
        ):
            if _ask(our_port, body) != _ask(their_port, body):
                raise SystemExit("the two do not give the same answer")
            times: dict[int, list[float]] = {our_port: [], their_port: []}
            for port in times:
                _load(port, body, 1)
            for _ in range(options.rounds):
                for port, seen in times.items():
                    seen.extend(_load(port, body, options.seconds))
        total = options.rounds * options.seconds
        _print(times[our_port], times[their_port], total)
        _print_parts(model, body, statistics.median(times[our_port]) / _CONNECTIONS)
    print(f"ratio: {len(times[our_port]) / len(times[their_port]):.2f}")
    return 0


def _train(uri: str, algorithm: str) -> None:
    command = [sys.executable, "-m", "training.train_all_models", "--tracking-uri", uri, "--problem", _MODEL]
    done = subprocess.run(  # noqa: S603 - our own command
        [*command, "--model", algorithm],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stdout)


def _one_row(model: LoadedModel) -> bytes:
    assert model.example is not None  # noqa: S101 - a training logs one
    row = model.example.head(1).to_dict("split")
    return orjson.dumps({"dataframe_split": {"columns": row["columns"], "data": row["data"]}})


@contextlib.contextmanager
def _process(command: list[str], environment: dict[str, str], log: Path) -> Iterator[int]:
    """Run a server on a free port until it is no longer needed; yield the port once it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with log.open("w") as output:
        process = subprocess.Popen(  # noqa: S603 - our own command
            [*command, str(port)], cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(port):
            if time.monotonic() > deadline or process.poll() is not None:
                raise SystemExit(f"{' '.join(command[1:4])} didn't come up:\n{log.read_text()}")
            time.sleep(0.3)
        yield port
    finally:
        process.terminate()
        process.wait(timeout=30)


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=2):
            return True
    except (urllib.error.URLError, OSError):
        return False


def _ask(port: int, body: bytes) -> object:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations", data=body, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 - http only
        return orjson.loads(response.read())


def _load(port: int, body: bytes, seconds: float) -> list[float]:
    """Send requests over all connections, one at a time on each; return how long each answer took.

    One thread and bare sockets: about 20 µs of work a request, so that it is not what is measured.
    """
    head = (
        "POST /invocations HTTP/1.1",
        "Host: x",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    )
    request = "\r\n".join((*head, "", "")).encode() + body
    times: list[float] = []
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as stack:
        for _ in range(_CONNECTIONS):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            state = {"buffer": b"", "sent": time.perf_counter()}
            selector.register(connection, selectors.EVENT_READ, state)
            connection.sendall(request)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            for key, _ in selector.select(timeout=1):
                state = key.data
                state["buffer"] += key.fileobj.recv(65536)
                if not _complete(state["buffer"]):
                    continue
                now = time.perf_counter()
                times.append(now - state["sent"])
                state |= {"buffer": b"", "sent": time.perf_counter()}
                key.fileobj.sendall(request)
    return times


def _complete(answer: bytes) -> bool:
    head, end, content = answer.partition(b"\r\n\r\n")
    if not end:
        return False
    if not head.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"an answer is {head.splitlines()[0].decode()}: {content.decode()}")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return len(content) >= int(length.split(b":")[1])


def _print(ours: list[float], theirs: list[float], seconds: float) -> None:
    table = Table(box=None)
    for name in ("", "requests/s", "p50 ms", "p99 ms"):
        table.add_column(name, justify="right" if name else "left")
    for name, times in (("ours", ours), ("mlflow models serve", theirs)):
        p50, p99 = np.percentile(times, [50, 99]) * 1000
        table.add_row(name, f"{len(times) / seconds:.0f}", f"{p50:.2f}", f"{p99:.2f}")
    Console().print(table)
    better = np.percentile(ours, 99) < np.median(theirs)
    print(f"our p99 is {'below' if better else 'NOT below'} MLflow's p50\n")


def _print_parts(model: LoadedModel, body: bytes, whole: float) -> None:
    """Print the time of each part of a request, measured alone in this process."""
    content = orjson.loads(body)["dataframe_split"]["data"]
    asked = requests.read(body, requests.JSON, model.signature, 1000)
    frame = model.signature.frame(asked.table)
    answers = model.predict(asked.table)
    parts: dict[str, Callable[[], object]] = {
        "parse JSON": lambda: orjson.loads(body),
        "check and convert": lambda: model.signature.from_rows(content),
        "read, both of these with the form": lambda: requests.read(
            body, requests.JSON, model.signature, 1000
        ),
        "predict, as served": lambda: model.predict(asked.table),
        "predict, bare scikit-learn with a frame": lambda: model.estimator.predict(frame),
        "serialise": lambda: orjson.dumps({"predictions": answers}),
    }
    microseconds = {
        name: 1e6 * statistics.median(timeit.repeat(part, number=10, repeat=50)) / 10
        for name, part in parts.items()
    }
    table = Table("part of one request", box=None)
    table.add_column("µs", justify="right")
    for name, took in microseconds.items():
        table.add_row(name, f"{took:.0f}")
    work = sum(
        microseconds[n] for n in ("read, both of these with the form", "predict, as served", "serialise")
    )
    table.add_row("HTTP, log, and waiting for the other three", f"{1e6 * whole - work:.0f}")
    table.add_row("all, of the service's time", f"{1e6 * whole:.0f}")
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
