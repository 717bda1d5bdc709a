"""Run make targets side by side and end with a table: jobs.py TARGET[:NEEDED]...

They start in the order given, each after what it needs. A target's output goes to a log, whose end is shown
if it fails. After a failure no more targets are started; under `make -k` all are that can be.
"""

import os
import re
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

LOGS = Path(".cache/jobs")
SHOWN_LINES = 150
# A closing line of pytest, as it is or in a frame of Ansible's or Molecule's.
TESTS = re.compile(r"(\d+) (passed|failed|errors?)\b(?=.* in [\d.]+s)")
# As pytest names a test that failed.
FAILED_TEST = re.compile(r"\b(?:FAILED|ERROR) (\S+::.*)")


@dataclass
class Job:
    """A make target that runs once.

    Attributes:
        target: Its name.
        needed: Targets that must have passed before it starts.
        result: `running`, `passed`, `FAILED`, or nothing if it has not started.
        seconds: How long it took.
    """

    target: str
    needed: list[str]
    result: str = ""
    seconds: float = 0

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return LOGS / f"{self.target}.log"

    def run(self) -> None:
        """Run it to its end."""
        began = time.monotonic()
        # Without this make's options: -k concerns our jobs, and its job slots are not to be shared.
        environment = {name: value for name, value in os.environ.items() if name != "MAKEFLAGS"}
        # In a log, colours and lines broken at 80 columns hide the names of tests.
        environment |= {"NO_COLOR": "1", "COLUMNS": "200"}
        with self.log.open("wb") as log:
            done = subprocess.run(  # noqa: S603 - a target of the Makefile here
                ["make", self.target],  # noqa: S607
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
            )
        self.seconds = time.monotonic() - began
        self.result = "FAILED" if done.returncode else "passed"

    def tests(self) -> str:
        """Add up the tests that its log reports."""
        counts: Counter[str] = Counter()
        for number, what in TESTS.findall(self.log.read_text(errors="replace")) if self.result else []:
            counts[what] += int(number)
        return ", ".join(f"{number} {what}" for what, number in counts.items())

    def failed_tests(self) -> list[str]:
        """Return the tests that failed, each with its reason."""
        found = FAILED_TEST.findall(self.log.read_text(errors="replace")) if self.result == "FAILED" else []
        return sorted(set(found))


def row(name: str, result: str, seconds: float, note: str = "") -> str:
    """Format a line of the table."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{name:<22} {result:<8} {minutes:>3}m{rest:02}s   {note}".rstrip()


def run_all(jobs: list[Job], at_once: int, *, keep_going: bool) -> None:
    """Run jobs side by side; those that may not start keep an empty result.

    Args:
        jobs: In the order in which they are to start.
        at_once: How many may run at the same time.
        keep_going: Start jobs even after one has failed.
    """
    running: dict[Future[None], Job] = {}
    with ThreadPoolExecutor(at_once) as pool:
        while True:
            results = {job.target: job.result for job in jobs}
            stopped = "FAILED" in results.values() and not keep_going
            ready = [
                job for job in jobs if not job.result and {results[name] for name in job.needed} <= {"passed"}
            ]
            for job in [] if stopped else ready[: at_once - len(running)]:
                job.result = "running"
                running[pool.submit(job.run)] = job
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job = running.pop(future)
                future.result()
                print(row(job.target, job.result, job.seconds, job.tests()), flush=True)


def main(arguments: list[str]) -> int:
    """Run the targets and print their results.

    Returns:
        The exit status: 0 if all have passed.
    """
    began = time.monotonic()
    jobs = [Job(target, needed.split()) for target, _, needed in (word.partition(":") for word in arguments)]
    LOGS.mkdir(parents=True, exist_ok=True)
    # One more than there are processors: jobs spend half their time waiting for hosts and services.
    at_once = int(os.environ.get("AT_ONCE") or (os.cpu_count() or 1) + 1)
    run_all(jobs, at_once, keep_going=bool(re.match("[a-z]*k", os.environ.get("MAKEFLAGS", ""))))

    for job in jobs:
        if job.result == "FAILED":
            lines = job.log.read_text(errors="replace").splitlines()[-SHOWN_LINES:]
            print(f"\n=== the end of {job.log}", *lines, sep="\n")
    # Close to the end, because continuous integration may show no more than that.
    if failed := [test for job in jobs for test in job.failed_tests()]:
        print("\n=== failed tests", *failed, sep="\n")
    print("\n=== summary")
    for job in jobs:
        print(row(job.target, job.result or "skipped", job.seconds, job.tests()))
    print(row("total", "", time.monotonic() - began))
    counts = Counter(job.result for job in jobs)
    # Continuous integration reads this line.
    print(f"jobs: {counts['passed']} passed, {counts['FAILED']} failed, {counts['']} skipped")
    return 0 if counts["passed"] == len(jobs) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
