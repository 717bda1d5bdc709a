"""How much faster is the training engine than the plain script from MLflow's documentation?

Both train the same 16 models (8 on breast_cancer, 8 on diabetes) against a server of their own with proxied
artifacts, in turns. Run it from the project's folder:

    .venv/bin/python bench/training.py --runs 3

The last line is ``ratio: N``: the plain script's time divided by ours, medians of the runs.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from mlflow_server import ROOT, server
from rich.console import Console
from rich.table import Table

_BOTH = "knn,random_forest,gradient_boosting,hist_gradient_boosting,mlp"
_MODELS = {
    "breast_cancer": f"logistic_regression,naive_bayes,svc,{_BOTH}",
    "diabetes": f"ridge,lasso,svr,{_BOTH}",
}

# As a user would write it: sequential, the fluent API, the documented calls, nothing tuned. The estimators
# are ours, so that both sides fit the same; their trusted types must be given, or saving is refused.
_PLAIN = """
import sys
import matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot as plt
import mlflow
from mlflow.models import infer_signature
from sklearn.metrics import ConfusionMatrixDisplay, PredictionErrorDisplay, get_scorer
from sklearn.model_selection import cross_val_score
from serving.contract import TRUSTED_TYPES
from training.data import load_data
from training.estimators import build
from training.problem_file import load_problems

mlflow.set_tracking_uri(sys.argv[1])
for argument in sys.argv[2:]:
    name, _, models = argument.partition("=")
    problem = load_problems()[name]
    data = load_data(problem)
    y_train, y_test = data.y_train, data.y_test
    mlflow.set_experiment("plain_" + name)
    for model_name in models.split(","):
        with mlflow.start_run(run_name=model_name):
            model = build(problem.algorithm(model_name), data.schema, len(data.y_train))
            scores = cross_val_score(model, data.x_train, y_train, cv=5, scoring=problem.metric)
            model.fit(data.x_train, y_train)
            mlflow.log_params(model.get_params())
            holdout = get_scorer(problem.metric)(model, data.x_test, y_test)
            mlflow.log_metrics({"cv_mean": scores.mean(), "cv_std": scores.std(), "holdout": holdout})
            figure, axes = plt.subplots()
            if problem.task == "classification":
                ConfusionMatrixDisplay.from_estimator(model, data.x_test, y_test, ax=axes)
            else:
                PredictionErrorDisplay.from_predictions(y_test, model.predict(data.x_test), ax=axes)
            figure.savefig("plot.png")
            plt.close(figure)
            mlflow.log_artifact("plot.png")
            mlflow.sklearn.log_model(
                model,
                name="model",
                signature=infer_signature(data.x_test, model.predict(data.x_test)),
                input_example=data.x_test.head(5),
                skops_trusted_types=list(TRUSTED_TYPES),
            )
"""

# What nobody can save: the same fits, two processes, one native thread each; no imports counted, no logging.
_BARE = """
import sys, time
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from training.data import load_data
from training.estimators import build
from training.problem_file import load_problems

def fit(model, data, problem):
    cross_val_score(clone(model), data.x_train, data.y_train, cv=5, scoring=problem.metric)
    model.fit(data.x_train, data.y_train)

jobs = []
for argument in sys.argv[1:]:
    name, _, models = argument.partition("=")
    problem = load_problems()[name]
    data = load_data(problem)
    for model in models.split(","):
        jobs.append((build(problem.algorithm(model), data.schema, len(data.y_train)), data, problem))
with Parallel(n_jobs=2) as parallel:
    parallel(delayed(fit)(*jobs[0]) for _ in range(4))
    begun = time.perf_counter()
    parallel(delayed(fit)(*job) for job in jobs)
    print(time.perf_counter() - begun)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run all sides in turns and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3, help="how often each side runs (default: 3)")
    runs = parser.parse_args(argv).runs
    times: dict[str, list[float]] = {"plain script": [], "training engine": [], "the fits alone": []}
    with tempfile.TemporaryDirectory(prefix="mlstack-bench-") as folder, server(Path(folder)) as uri:
        for _ in range(runs):
            times["plain script"].append(_run(_plain(uri), Path(folder))[0])
            times["training engine"].append(_run(_engine(uri), ROOT)[0])
            times["the fits alone"].append(float(_run(_script(_BARE), ROOT)[1]))
    console = Console(width=100)
    table = Table(title=f"16 models, {os.cpu_count()} cores, {runs} run(s)", title_justify="left")
    for heading in ("", "median s", "all runs, s"):
        table.add_column(heading, justify="right" if heading else "left")
    medians = {side: statistics.median(taken) for side, taken in times.items()}
    for side, taken in times.items():
        table.add_row(side, f"{medians[side]:.1f}", " ".join(f"{value:.1f}" for value in taken))
    console.print(table)
    engine = medians["training engine"]
    print(f"{engine / medians['the fits alone']:.2f} times the fits alone")
    print(f"ratio: {medians['plain script'] / engine:.2f}")
    return 0


def _plain(uri: str) -> list[str]:
    return _script(_PLAIN, uri)


def _script(code: str, *arguments: str) -> list[str]:
    models = (f"{problem}={names}" for problem, names in _MODELS.items())
    return [sys.executable, "-W", "ignore", "-c", code, *arguments, *models]


def _engine(uri: str) -> list[str]:
    """Return one command for both lists: each problem takes those of its task, and its baseline."""
    return [
        *(sys.executable, "-m", "training.train_all_models", "--tracking-uri", uri),
        *("--problem", ",".join(_MODELS), "--model", ",".join(_MODELS.values())),
    ]


def _run(command: list[str], folder: Path) -> tuple[float, str]:
    """Run a command; return its wall time and its output, which is shown if it fails."""
    begun = time.perf_counter()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true"}
    if _BARE in command:
        environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(  # noqa: S603 - our own commands
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{command[:4]} failed ({done.returncode}):\n{done.stdout}\n{done.stderr}")
    return time.perf_counter() - begun, done.stdout


if __name__ == "__main__":
    sys.exit(main())
