"""How much faster is the training engine than the plain script from MLflow's documentation?

Both train the same 16 models (8 on breast_cancer, 8 on diabetes) against a server of their own with proxied
artifacts, in turns. Run it from the project's folder:

    .venv/bin/python bench/training.py --runs 3

The last line is ``ratio: N``: the plain script's time divided by ours, medians of the runs.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT = Path(__file__).resolve().parent.parent
_START_SECONDS = 120
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
from training import zoo
from training.data import load_data
from training.problem import load_problems

mlflow.set_tracking_uri(sys.argv[1])
for argument in sys.argv[2:]:
    name, _, models = argument.partition("=")
    problem = load_problems()[name]
    data = load_data(problem)
    y_train, y_test = data.y_train, data.y_test
    mlflow.set_experiment("plain_" + name)
    for model_name in models.split(","):
        with mlflow.start_run(run_name=model_name):
            model = zoo.build(zoo.find(model_name, problem), data.schema)
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
                skops_trusted_types=zoo.TRUSTED_TYPES,
            )
"""


def main() -> int:
    """Run both sides in turns and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3, help="how often each side runs (default: 3)")
    runs = parser.parse_args().runs
    times: dict[str, list[float]] = {"plain script": [], "training engine": []}
    with tempfile.TemporaryDirectory(prefix="mlstack-bench-") as folder, _server(Path(folder)) as uri:
        for _ in range(runs):
            times["plain script"].append(_seconds(_plain(uri), Path(folder)))
            times["training engine"].append(_seconds(_engine(uri), _ROOT))
    console = Console(width=100)
    table = Table(title=f"16 models, {os.cpu_count()} cores, {runs} run(s)", title_justify="left")
    for heading in ("", "median s", "all runs, s"):
        table.add_column(heading, justify="right" if heading else "left")
    medians = {side: statistics.median(taken) for side, taken in times.items()}
    for side, taken in times.items():
        table.add_row(side, f"{medians[side]:.1f}", " ".join(f"{value:.1f}" for value in taken))
    console.print(table)
    print(f"ratio: {medians['plain script'] / medians['training engine']:.2f}")
    return 0


def _plain(uri: str) -> list[str]:
    return [sys.executable, "-W", "ignore", "-c", _PLAIN, uri, *(f"{k}={v}" for k, v in _MODELS.items())]


def _engine(uri: str) -> list[str]:
    """One command with the union of both lists: each problem takes those of its task, and its baseline."""
    return [
        *(sys.executable, "-m", "training.train_all_models", "--tracking-uri", uri),
        *("--problem", ",".join(_MODELS), "--model", ",".join(_MODELS.values())),
    ]


def _seconds(command: list[str], folder: Path) -> float:
    """Run a command and return its wall time; its output is shown only if it fails."""
    begun = time.perf_counter()
    environment = os.environ | {"PYTHONPATH": str(_ROOT), "MLFLOW_DISABLE_TELEMETRY": "true"}
    done = subprocess.run(  # noqa: S603 - our own commands
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{command[:4]} failed ({done.returncode}):\n{done.stdout}\n{done.stderr}")
    return time.perf_counter() - begun


@contextlib.contextmanager
def _server(folder: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)),
        *("--backend-store-uri", f"sqlite:///{folder}/mlflow.db"),
        *("--artifacts-destination", str(folder / "artifacts")),
    ]
    settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(  # noqa: S603 - our own command
            command, env=os.environ | settings, stdout=log, stderr=subprocess.STDOUT
        )
    uri = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not _healthy(uri):
            if time.monotonic() > deadline or server.poll() is not None:
                raise SystemExit(f"mlflow server didn't come up:\n{(folder / 'server.log').read_text()}")
            time.sleep(0.3)
        yield uri
    finally:
        server.terminate()
        server.wait(timeout=30)


def _healthy(uri: str) -> bool:
    try:
        with urllib.request.urlopen(f"{uri}/health", timeout=2):  # noqa: S310 - http only
            return True
    except (urllib.error.URLError, OSError):
        return False


if __name__ == "__main__":
    sys.exit(main())
