"""Run MLflow, a training, the app and the REST service as plain processes, without Docker or root.

Ctrl-C stops them all. Data is kept in .dev; remove that folder to start over. A training runs if no model has
the alias `champion` yet, or with --train.
"""

import argparse
import asyncio
import collections
import contextlib
import json
import os
import signal
import socket
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / ".dev"
STARTUP_SECONDS = 180
STOP_SECONDS = 10
# A proxy from the environment must not come between us and our own processes.
HTTP = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Child:
    """A process in its own process group; each line it prints is prefixed with its name."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.process = process
        self.last_lines: collections.deque[str] = collections.deque(maxlen=10)
        self.ended = asyncio.create_task(self._follow())

    @classmethod
    async def start(cls, name: str, *command: str) -> "Child":
        """Start `python -m COMMAND...` in the project's root."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *command),
            cwd=ROOT,
            start_new_session=True,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=2**20,
        )
        return cls(name, process)

    async def _follow(self) -> None:
        printing = asyncio.create_task(self._print_lines())
        await self.process.wait()
        await asyncio.wait([printing], timeout=1)  # a grandchild may keep the pipe open longer

    async def _print_lines(self) -> None:
        assert self.process.stdout  # noqa: S101 - a pipe, as requested
        async for line in self.process.stdout:
            self.last_lines.append(line.decode(errors="replace").rstrip())
            say(self.name, self.last_lines[-1])

    async def stop(self) -> None:
        """Stop the process and everything it started."""
        self._signal(signal.SIGTERM)
        await asyncio.wait([self.ended], timeout=STOP_SECONDS)
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def last_words(self) -> str:
        """Describe how it ended, with its last lines."""
        lines = "".join(f"\n    {line}" for line in self.last_lines)
        return f"{self.name} ended with status {self.process.returncode}; its last lines:{lines}"


def say(name: str, text: str) -> None:
    """Print a line prefixed with a name."""
    print(f"{name:8} | {text}", flush=True)


async def get(url: str) -> bytes:
    """Return the body of a URL; OSError if it does not answer successfully."""

    def read() -> bytes:
        with HTTP.open(url, timeout=5) as answer:
            return bytes(answer.read())

    return await asyncio.to_thread(read)


async def wait_for(child: Child, url: str) -> None:
    """Return once the URL answers; RuntimeError if the child ends before that or takes too long."""
    for _ in range(STARTUP_SECONDS * 2):
        if child.ended.done():
            raise RuntimeError(child.last_words())
        with contextlib.suppress(OSError):
            await get(url)
            return
        await asyncio.sleep(0.5)
    raise RuntimeError(f"expected {child.name} to answer at {url} within {STARTUP_SECONDS} s; it did not")


async def has_champion(mlflow_url: str) -> bool:
    """Say whether any registered model has a champion."""
    found = json.loads(await get(f"{mlflow_url}/api/2.0/mlflow/registered-models/search?max_results=1000"))
    aliases = [alias for model in found.get("registered_models", []) for alias in model.get("aliases", [])]
    return any(alias["alias"] == "champion" for alias in aliases)


async def run(options: argparse.Namespace, children: list[Child]) -> None:
    """Start everything and follow it until Ctrl-C, or until a child fails (RuntimeError)."""
    mlflow_url = f"http://127.0.0.1:{options.mlflow_port}"
    app_url = f"http://127.0.0.1:{options.streamlit_port}"
    rest_url = f"http://127.0.0.1:{options.scoring_port}"
    os.environ |= {
        "MLFLOW_TRACKING_URI": mlflow_url,
        "MLSTACK_MLFLOW_PUBLIC_URL": mlflow_url,
        "MLSTACK_SCORING_PUBLIC_URL": rest_url,
        "MLSTACK_SCORING_DATA": str(DATA / "models"),
        "MLSTACK_ACTIVITY_FILE": str(DATA / "predictions.sqlite"),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
    }

    async def start(name: str, *command: str) -> Child:
        children.append(await Child.start(name, *command))
        return children[-1]

    # fmt: off
    mlflow = await start(
        "mlflow", "mlflow", "server", "--host=127.0.0.1", f"--port={options.mlflow_port}", "--workers=1",
        f"--backend-store-uri=sqlite:///{DATA}/mlflow.db", f"--artifacts-destination={DATA}/artifacts",
        "--uvicorn-opts=--log-level=warning",
    )
    app = await start(
        "app", "streamlit", "run", "streamlit_app/server.py", "--server.headless=true",
        "--server.address=127.0.0.1", f"--server.port={options.streamlit_port}",
        "--browser.gatherUsageStats=false",
    )
    # fmt: on
    rest = await start("rest", "scoring", f"--port={options.scoring_port}")
    await wait_for(mlflow, f"{mlflow_url}/health")
    await wait_for(app, f"{app_url}/_stcore/health")
    await wait_for(rest, f"{rest_url}/health")
    say("dev", f"MLflow {mlflow_url}   app {app_url}   REST {rest_url}/docs   Ctrl-C stops them")

    if options.train or not await has_champion(mlflow_url):
        await start("training", "training.train_all_models")
    else:
        say("dev", "there is a champion, so nothing is trained (to train anyway: make dev TRAIN=1)")

    watched = {child.ended: child for child in children}
    while True:
        done, _ = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
        child = watched.pop(done.pop())
        if child.name != "training" or child.process.returncode != 0:
            raise RuntimeError(child.last_words())
        say("dev", "the training is done")


async def serve(options: argparse.Namespace) -> int:
    """Run until Ctrl-C (status 0) or until a child fails (status 1), and leave no process behind."""
    children: list[Child] = []
    running = asyncio.create_task(run(options, children))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    error = ""
    try:
        await running
    except asyncio.CancelledError:
        print(flush=True)
    except (RuntimeError, OSError) as reason:
        error = str(reason)
    say("dev", "stopping")
    await asyncio.gather(*(child.stop() for child in children))
    if error:
        print(f"make dev: error: {error}", file=sys.stderr)
    return 1 if error else 0


def port(text: str) -> int:
    """Parse a port number."""
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"expected a port number from 1 to 65535; got {text!r}")
    return int(text)


def is_taken(number: int) -> bool:
    """Say whether something already listens on this port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", number))
        except OSError:
            return True
    return False


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line, and refuse ports that cannot be had."""
    parser = argparse.ArgumentParser(prog="make dev", description=__doc__, allow_abbrev=False)
    parser.add_argument("--mlflow-port", type=port, default=5000, metavar="PORT")
    parser.add_argument("--streamlit-port", type=port, default=8501, metavar="PORT")
    parser.add_argument("--scoring-port", type=port, default=8502, metavar="PORT")
    parser.add_argument("--train", action="store_true", help="train although there is a champion")
    options = parser.parse_args(argv)
    ports = {
        "MLFLOW_PORT": options.mlflow_port,
        "STREAMLIT_PORT": options.streamlit_port,
        "SCORING_PORT": options.scoring_port,
    }
    if len(set(ports.values())) < len(ports):
        parser.error(f"expected different ports; got {', '.join(f'{k}={v}' for k, v in ports.items())}")
    for name, number in ports.items():
        if is_taken(number):
            parser.error(f"port {number} is taken. To use another: make dev {name}={number + 1}")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run everything that `make dev` promises, and return the exit code."""
    options = parse(argv)
    DATA.mkdir(exist_ok=True)
    return asyncio.run(serve(options))


if __name__ == "__main__":
    sys.exit(main())
