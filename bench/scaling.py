"""How does the time of a training grow with rows, models and workers, and how much memory does it take?

Each training runs against an MLflow server of its own on made-up tables of 20 columns. Run it from the
project's folder; it takes about ten minutes, and draws docs/images/scaling.png:

    .venv/bin/python bench/scaling.py
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from mlflow_server import ROOT, server
from processes import measure
from rich.console import Console
from rich.table import Table

_ROWS = (1_000, 10_000, 100_000, 1_000_000)
_ALGORITHMS = ("logistic_regression", "naive_bayes", "decision_tree", "hist_gradient_boosting")
_MORE = (*_ALGORITHMS, "random_forest", "extra_trees", "gradient_boosting", "mlp")
_COLUMNS = 20
_PICTURE = ROOT / "docs" / "images" / "scaling.png"


@dataclass(frozen=True)
class Point:
    """One training: what it was, wall time in seconds, and most memory (PSS of all its processes) in MiB."""

    rows: int
    algorithms: int
    processes: int
    seconds: float
    memory: float


def main(argv: Sequence[str] | None = None) -> int:
    """Run all trainings, print the table and draw the picture."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="mlstack-bench-") as name, server(Path(name)) as uri:
        folder = Path(name) / "problems"
        folder.mkdir()
        by_rows = [_train(folder, uri, rows, _ALGORITHMS, 2) for rows in _ROWS]
        by_algorithms = [_train(folder, uri, 10_000, _MORE[:count], 2) for count in (1, 2, 4, 8)]
        by_workers = [_train(folder, uri, 10_000, _MORE, count) for count in (1, 2)]
    table = Table(title=f"{os.cpu_count()} processors, one run each", title_justify="left")
    for heading in ("rows", "algorithms", "processes", "seconds", "peak memory, MiB"):
        table.add_column(heading, justify="right")
    for point in (*by_rows, *by_algorithms, *by_workers):
        table.add_row(
            f"{point.rows:,}",
            str(point.algorithms),
            str(point.processes),
            f"{point.seconds:.1f}",
            f"{point.memory:.0f}",
        )
    Console(width=80).print(table)
    _draw(by_rows, by_algorithms, by_workers)
    return 0


def _train(folder: Path, uri: str, rows: int, algorithms: tuple[str, ...], processes: int) -> Point:
    name = f"rows_{rows}"
    if not (folder / f"{name}.yaml").exists():
        _make_problem(folder, name, rows)
    command = [
        *(sys.executable, "-m", "training.train_all_models", "--tracking-uri", uri, "--jobs", str(processes)),
        *("--problems-dir", str(folder), "--problem", name, "--model", ",".join(algorithms)),
    ]
    run = measure(command, ROOT)
    return Point(rows, len(algorithms), processes, run.seconds, run.memory)


def _make_problem(folder: Path, name: str, rows: int) -> None:
    """Write a table of two classes that some of its columns separate, with noise."""
    random = np.random.default_rng(0)
    x = random.normal(size=(rows, _COLUMNS))
    signal = x[:, :5].sum(axis=1) + x[:, 5] * x[:, 6] + random.normal(0, 2, rows)
    table = pd.DataFrame(x, columns=[f"x{number}" for number in range(_COLUMNS)])
    table.assign(y=np.where(signal > 0, "yes", "no")).to_parquet(folder / f"{name}.parquet")
    (folder / f"{name}.yaml").write_text(
        f"name: {name}\ntask: classification\ndata: {{source: parquet, path: {name}.parquet}}\n"
        "target: y\nmetric: roc_auc\n"
    )


def _draw(by_rows: list[Point], by_algorithms: list[Point], by_workers: list[Point]) -> None:
    figure = Figure(figsize=(11, 3.4), dpi=100, layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    left.loglog([p.rows for p in by_rows], [p.seconds for p in by_rows], marker="o", color="#2563a8")
    left.set_title(f"rows ({len(_ALGORITHMS)} algorithms, 2 processes)", fontsize=10)
    middle.plot(
        [p.algorithms for p in by_algorithms], [p.seconds for p in by_algorithms], marker="o", color="#2563a8"
    )
    middle.set_title("algorithms (10,000 rows, 2 processes)", fontsize=10)
    middle.set_ylim(bottom=0)
    right.bar([str(p.processes) for p in by_workers], [p.seconds for p in by_workers], color="#2563a8")
    right.set_title(f"processes ({len(_MORE)} algorithms, 10,000 rows)", fontsize=10)
    left.set_ylabel("seconds")
    for axes in (left, middle, right):
        axes.grid(visible=True, color="#e4e7eb")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(_PICTURE)


if __name__ == "__main__":
    sys.exit(main())
