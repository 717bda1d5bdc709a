#!/usr/bin/python3
"""Watch: restart services that no longer answer.

Systemd restarts what ends. This is for what doesn't: a container whose process is gone without the engine
knowing, or a server that takes requests and never answers. Which URLs a service answers is in its unit,
in lines `X-Watch=URL`. Any status counts as an answer: a server that says what is wrong is not dead.
"""

import http.client
import re
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path

_UNITS = Path("/etc/systemd/system")
_SCRIPT = "/usr/local/lib/mlstack-service.sh"
_PAUSE_SECONDS = 2.0
# Twice in a row refused, cut off or silent for so long: a busy server may take its time.
_FAILURES = 2
_SILENT_SECONDS = 15.0
# By which a service knows that a request is no one's work.
_USER_AGENT = "mlstack-watch"
# After a restart, the next one is so many seconds away, and each time twice as many.
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 15.0, 600.0


class Watch:
    """Watches one service.

    Args:
        name: Its unit's name.
        urls: What it answers.
        ask: Asks a URL; raises OSError or HTTPException if there is no answer.
        run: Runs a command, and returns its exit status.
        clock: Seconds of a clock that never jumps.
    """

    def __init__(
        self,
        name: str,
        urls: list[str],
        ask: Callable[[str], None],
        run: Callable[[list[str]], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self.urls = name, urls
        self._ask, self._run, self._clock = ask, run, clock
        self._failures = 0
        self._wait = _FIRST_WAIT_SECONDS
        self._restarted = -_LONGEST_WAIT_SECONDS

    def look(self) -> None:
        """Ask once; restart the service if it has not answered often or long enough."""
        try:
            for url in self.urls:
                self._ask(url)
        except (OSError, http.client.HTTPException) as error:
            self._failed(url, error)
            return
        self._failures = 0
        if self._clock() - self._restarted > _LONGEST_WAIT_SECONDS:
            self._wait = _FIRST_WAIT_SECONDS

    def _failed(self, url: str, error: Exception) -> None:
        # While it starts or stops, systemd takes care of it.
        if self._run(["systemctl", "is-active", "--quiet", self.name]) != 0:
            self._failures = 0
            return
        if self._run([_SCRIPT, "lost", self.name]) == 0:
            print(f"{self.name} had ended without the engine knowing. It is started again.", flush=True)
            self._failures = 0
            return
        self._failures += 1
        if self._failures < _FAILURES or self._clock() - self._restarted < self._wait:
            return
        print(f"{self.name} does not answer at {url}: {error}. It is restarted.", flush=True)
        self._wait = min(2 * self._wait, _LONGEST_WAIT_SECONDS)
        self._restarted, self._failures = self._clock(), 0
        if self._run(["systemctl", "restart", self.name]) != 0:
            print(f"{self.name} could not be restarted; its journal says why", flush=True)
        self._restarted = self._clock()


def ask(url: str) -> None:
    """Ask a URL.

    Raises:
        OSError: Nothing listens, the connection was cut, or there was no answer in time.
        http.client.HTTPException: What came back is no HTTP.
    """
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=_SILENT_SECONDS)
    try:
        path = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
        connection.request("GET", path, headers={"User-Agent": _USER_AGENT})
        connection.getresponse().read()
    finally:
        connection.close()


def run(command: list[str]) -> int:
    """Run a command, and return its exit status."""
    return subprocess.run(command, check=False).returncode  # noqa: S603 - our own commands


def watched(folder: Path) -> dict[str, list[str]]:
    """Return what units are to be watched: their URLs by name."""
    found = {}
    for unit in sorted(folder.glob("*.service")):
        urls = re.findall(r"^X-Watch=(\S+)$", unit.read_text(), re.MULTILINE)
        if urls:
            found[unit.stem] = urls
    return found


def main() -> int:
    """Watch until stopped; a unit that is written or changed is seen within seconds."""
    threads: dict[tuple[str, ...], threading.Thread] = {}
    while True:
        units = watched(_UNITS)
        for name, urls in units.items():
            key = (name, *urls)
            if key not in threads:
                watch = Watch(name, urls, ask, run)
                threads[key] = threading.Thread(target=_keep, args=(watch,), daemon=True)
                threads[key].start()
        threads = {key: thread for key, thread in threads.items() if thread.is_alive()}
        time.sleep(_PAUSE_SECONDS)


def _keep(watch: Watch) -> None:
    while watched(_UNITS).get(watch.name) == watch.urls:
        watch.look()
        time.sleep(_PAUSE_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
