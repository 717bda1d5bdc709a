"""Time a first and an unchanged provisioning against the emulator, of one or more checkouts side by side.

.venv/bin/python bench/provision.py [--runs N] [CHECKOUT ...]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODULE = "Using module file"


def measure(checkout: Path) -> dict[str, list[float]]:
    """Provision an empty account and again.

    Returns:
        For `first` and `unchanged`: wall seconds, CPU seconds, and module calls.
    """
    sys.path.insert(0, str(checkout))
    from tests.provision.emulator import Emulator, free_port, start_server  # noqa: PLC0415 (that of the checkout)

    def cpu() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    found = {}
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        server = start_server(port, Path(folder) / "moto.log")
        emulator = Emulator(f"http://127.0.0.1:{port}", Path(folder))
        inventory = emulator.inventory("mlstack")
        for name in ("first", "unchanged"):
            before, start = cpu(), time.monotonic()
            run = emulator.play(inventory)
            if run.returncode != 0 or (name == "unchanged") != (run.count("changed") == 0):
                sys.exit(run.output)
            found[name] = [time.monotonic() - start, cpu() - before]
        counted = emulator.play(inventory, "-vvv")
        found["unchanged"].append(counted.output.count(MODULE))
        server.kill()
        server.wait()
    return found


def main() -> None:
    """Print a table: medians of the runs, in turns, and the ratio to the first checkout."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkouts", nargs="*", type=Path, default=[ROOT], metavar="CHECKOUT")
    parser.add_argument("--runs", type=int, default=3, help="runs of each (default: 3)")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.checkouts[0].resolve())))
        return

    runs: dict[Path, list[dict[str, list[float]]]] = {checkout: [] for checkout in arguments.checkouts}
    for turn in range(arguments.runs):
        for checkout, done in runs.items():
            print(f"run {turn + 1} of {arguments.runs}: {checkout}", file=sys.stderr)
            command = [sys.executable, __file__, "--one", checkout]
            done.append(
                json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)  # noqa: S603
            )

    print(f"{'checkout':40} {'run':10} {'wall s':>7} {'CPU s':>6} {'modules':>8} {'ratio':>6}")
    for name in ("first", "unchanged"):
        base = 0.0
        for checkout, done in runs.items():
            wall, used = (statistics.median(one[name][i] for one in done) for i in (0, 1))
            modules = f"{done[0][name][2]:.0f}" if name == "unchanged" else ""
            base = base or wall
            print(f"{checkout!s:40} {name:10} {wall:7.1f} {used:6.1f} {modules:>8} {base / wall:6.2f}")


if __name__ == "__main__":
    main()
