#!/usr/bin/env python3
"""What clients that write without a pause wait for: our MLflow beside one with MLflow's own flags.

With the sandbox running:

    python bench/writers.py [--threads 8] [--minutes 10]

Both servers are asked in turns, a minute each, so that what else the machine does meets both.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from uuid import uuid4

from mlflow import MlflowClient
from mlflow_server import ROOT, server

sys.path.insert(0, str(ROOT))
from tests.faults.writers import Writers

_TURN_SECONDS = 60


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=8, help="clients at once (default: %(default)s)")
    parser.add_argument("--minutes", type=int, default=10, help="for each server (default: %(default)s)")
    parser.add_argument("--url", default="http://127.0.0.1:5000", help="the platform (default: %(default)s)")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="mlstack-bench-") as folder,
        server(Path(folder), workers=4) as uri,
    ):
        servers = {"mlstack": options.url, "mlflow server, 4 workers": uri}
        rounds: dict[str, list[Writers]] = {name: [] for name in servers}
        for minute in range(options.minutes):
            for name, url in servers.items():
                with Writers(MlflowClient(url), f"bench-{uuid4()}", options.threads) as writers:
                    time.sleep(_TURN_SECONDS)
                rounds[name].append(writers)
                print(f"minute {minute + 1}, {name}: {len(writers.acknowledged)} writes", flush=True)
        print(
            f"\n| {options.threads} clients, {options.minutes} min "
            "| writes | refused | lost | p50 | p95 | longest |"
        )
        print("|---|---|---|---|---|---|---|")
        for name, done in rounds.items():
            took = sorted(written.seconds * 1000 for one in done for written in one.acknowledged)
            quantiles = statistics.quantiles(took, n=100)
            refused, lost = sum(one.refused for one in done), sum(len(one.missing()) for one in done)
            print(
                f"| {name} | {len(took):,} | {refused} | {lost} "
                f"| {quantiles[49]:.0f} ms | {quantiles[94]:.0f} ms | {took[-1]:.0f} ms |"
            )


if __name__ == "__main__":
    main()
