"""Lock and record of deployments, on the host. Needs only Python's standard library.

The first argument is JSON: `do`, which is one of

- `take`: take the lock for `holder`, unless a live one of another run holds it; `take_over` takes it anyway.
  With `record_begin` a line is added at once.
- `renew`, `release`: for `run`, if it still holds the lock.
- `end`: add what became of `run` to the record, and release.

and where the files are. Prints JSON: `outcome`, the `holder` of the lock, and whether a line `is_recorded`
although the run has not ended. The clock is that of the host since its boot.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from pathlib import Path
from typing import Any


def stamp() -> str:
    """Return the time in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class Deployments:
    """What is kept in two files.

    Args:
        state: The lock and what could not be recorded yet; on a disk that is empty after a boot.
        record: One line of JSON for each run.
        mount_points: Where something must be mounted before a line may be written below it.
        seconds: For how long the lock holds without being renewed.
    """

    def __init__(self, state: str, record: str, mount_points: list[str], seconds: int) -> None:
        self.state, self.record, self.mount_points, self.seconds = (
            Path(state),
            Path(record),
            mount_points,
            seconds,
        )
        known = json.loads(self.state.read_text()) if self.state.exists() else {}
        # Runs by id: they have a place here until they are in the record.
        self.runs: dict[str, dict[str, Any]] = known.get("runs", {})
        self.lock: dict[str, Any] = known.get("lock", {})
        # Those to record although they have not ended.
        self.begun: list[str] = []

    def holder(self) -> dict[str, Any]:
        """Return the live holder; nothing if the lock is free or has lapsed."""
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - self.lock.get("renewed", 0)
        if not self.lock or age > self.seconds:
            return {}
        return self.runs[self.lock["run"]] | {"silent": round(age)}

    def take(self, holder: dict[str, Any], *, take_over: bool) -> str:
        """Return `taken`, `mine` or `held`."""
        run = holder["run"]
        now = self.holder()
        if now.get("run") == run:
            return self.renew(run)
        if now and (not take_over or run in self.runs):
            return "held"
        left = self.runs.get(self.lock.get("run", ""), {})
        if left and left["run"] != run:
            left |= {"ended": stamp(), "outcome": f"taken over by {holder['who']}" if now else "interrupted"}
        # A run that let the lock go, or was silent for too long, may take it again if nobody else has.
        again = run in self.runs
        if not again:
            self.runs[run] = holder | {"started": stamp()}
        self.lock = {"run": run, "renewed": time.clock_gettime(time.CLOCK_BOOTTIME)}
        return "mine" if again else "taken"

    def renew(self, run: str) -> str:
        """Return `mine`, or `lost` if another run has taken it; one that was silent for too long goes on."""
        if self.lock.get("run") != run:
            return "lost"
        self.lock["renewed"] = time.clock_gettime(time.CLOCK_BOOTTIME)
        return "mine"

    def release(self, run: str) -> str:
        """Return `released`, or `lost`."""
        if self.lock.get("run") != run:
            return "lost"
        self.lock = {}
        return "released"

    def end(self, run: str, result: dict[str, Any]) -> str:
        """Return what `release` does."""
        if run in self.runs:
            self.runs[run] |= {"ended": stamp(), **result}
        return self.release(run)

    def save(self) -> bool:
        """Write the lock, and add the runs that have ended, or are to be recorded now, to the record.

        Returns:
            Whether those that are to be recorded now are.
        """
        is_mounted = all(os.path.ismount(place) for place in self.mount_points)
        if is_mounted:
            ended = [
                run for run in self.runs.values() if "ended" in run and run["run"] != self.lock.get("run")
            ]
            begun = [self.runs[run] | {"ended": stamp(), "outcome": "begun"} for run in self.begun]
            if ended or begun:
                self.record.parent.mkdir(parents=True, exist_ok=True)
                # A line that a power loss cut off is not continued.
                torn = self.record.exists() and self.record.read_bytes()[-1:] not in {b"", b"\n"}
                with os.fdopen(
                    os.open(self.record, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a"
                ) as file:
                    file.write("\n" * torn + "".join(json.dumps(run) + "\n" for run in ended + begun))
                    file.flush()
                    os.fsync(file.fileno())
            self.runs = {name: run for name, run in self.runs.items() if run not in ended}
        new = self.state.with_suffix(".new")
        new.write_text(json.dumps({"lock": self.lock, "runs": self.runs}))
        new.replace(self.state)
        return is_mounted and bool(self.begun)


def main() -> None:
    """Do what is asked, one process at a time."""
    asked = json.loads(sys.argv[1])
    os.umask(0o022)
    Path(asked["state"]).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with Path(asked["state"]).with_suffix(".guard").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        known = Deployments(asked["state"], asked["record"], asked["mount_points"], asked["seconds"])
        if asked["do"] == "take":
            outcome = known.take(asked["holder"], take_over=asked["take_over"])
            if asked["record_begin"] and outcome == "taken":
                known.begun.append(asked["holder"]["run"])
        elif asked["do"] == "end":
            outcome = known.end(asked["run"], asked["result"])
        else:
            outcome = {"renew": known.renew, "release": known.release}[asked["do"]](asked["run"])
        is_recorded = known.save()
        print(json.dumps({"outcome": outcome, "holder": known.holder(), "is_recorded": is_recorded}))


if __name__ == "__main__":
    main()
