"""Train another tool on a table and predict its holdout: `tables.py` runs this in that tool's environment.

    python rivals.py TOOL FOLDER

The folder holds train.parquet and test.parquet (with the target) and task.json; predictions.parquet is
written beside them: a column of probabilities for each class, or one of numbers. The last line that is
printed says what was chosen.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

# What each tool calls our metrics.
_METRICS = {
    "lightgbm": {
        "roc_auc": "auc",
        "neg_log_loss": "multi_logloss",
        "neg_mean_absolute_error": "l1",
        "neg_root_mean_squared_error": "rmse",
    },
    "flaml": {
        "roc_auc": "roc_auc",
        "neg_log_loss": "log_loss",
        "neg_mean_absolute_error": "mae",
        "neg_root_mean_squared_error": "rmse",
    },
    "autogluon": {
        "roc_auc": "roc_auc",
        "neg_log_loss": "log_loss",
        "neg_mean_absolute_error": "mean_absolute_error",
        "neg_root_mean_squared_error": "root_mean_squared_error",
    },
}


def main() -> None:
    """Read, train, predict, write."""
    tool, folder = sys.argv[1], Path(sys.argv[2])
    task: dict[str, Any] = json.loads((folder / "task.json").read_text())
    train, test = (pd.read_parquet(folder / f"{part}.parquet") for part in ("train", "test"))
    run = {"lightgbm": _lightgbm, "flaml": _flaml, "autogluon": _autogluon}[tool]
    metric = _METRICS[tool][task["metric"]]
    values, chosen = run(train, test.drop(columns=task["target"]), task, metric)
    values.to_parquet(folder / "predictions.parquet")
    print(chosen)


def _lightgbm(
    train: pd.DataFrame, test: pd.DataFrame, task: dict[str, Any], metric: str
) -> tuple[pd.DataFrame, str]:
    """Boost with native categories at a low rate, and stop early by a part that is kept aside."""
    import lightgbm  # noqa: PLC0415 - each environment has one tool only
    from sklearn.model_selection import train_test_split  # noqa: PLC0415

    y, x = train[task["target"]], train.drop(columns=task["target"])
    for name in x.columns:
        if pd.api.types.is_datetime64_any_dtype(x[name]):
            x[name], test[name] = (part[name].astype("int64") for part in (x, test))
        elif not pd.api.types.is_numeric_dtype(x[name]):
            x[name] = x[name].astype("category")
            test[name] = pd.Categorical(test[name], categories=x[name].cat.categories)
    classes = task["task"] == "classification"
    fitted, kept, y_fitted, y_kept = train_test_split(
        x, y, test_size=0.15, random_state=0, stratify=y if classes else None
    )
    shared = {"n_estimators": 3000, "learning_rate": 0.05, "n_jobs": task["cpus"], "verbosity": -1}
    if classes:
        model = lightgbm.LGBMClassifier(**shared)
    else:
        model = lightgbm.LGBMRegressor(objective={"l1": "l1", "rmse": "l2"}[metric], **shared)
    stop = lightgbm.early_stopping(50, first_metric_only=True, verbose=False)
    model.fit(fitted, y_fitted, eval_set=[(kept, y_kept)], eval_metric=metric, callbacks=[stop])
    return _answers(model, test, model.classes_ if classes else None), f"{model.best_iteration_} rounds"


def _flaml(
    train: pd.DataFrame, test: pd.DataFrame, task: dict[str, Any], metric: str
) -> tuple[pd.DataFrame, str]:
    from flaml import AutoML  # noqa: PLC0415

    y, x = train[task["target"]].to_numpy(), train.drop(columns=task["target"])
    model = AutoML()
    model.fit(
        x,
        y,
        task=task["task"],
        metric=metric,
        time_budget=task["seconds"],
        n_jobs=task["cpus"],
        seed=0,
        verbose=0,
    )
    classes = model.classes_ if task["task"] == "classification" else None
    return _answers(model, test, classes), str(model.best_estimator)


def _autogluon(
    train: pd.DataFrame, test: pd.DataFrame, task: dict[str, Any], metric: str
) -> tuple[pd.DataFrame, str]:
    from autogluon.tabular import TabularPredictor  # noqa: PLC0415

    model = TabularPredictor(task["target"], eval_metric=metric, path="autogluon", verbosity=1)
    model.fit(train, presets="medium_quality", time_limit=task["seconds"], num_cpus=task["cpus"], num_gpus=0)
    others = [name for name in model.model_names() if name != model.model_best]
    chosen = f"{model.model_best}, beside {', '.join(others)}"
    if task["task"] == "classification":
        return model.predict_proba(test).rename(columns=str), chosen
    return pd.DataFrame({"number": model.predict(test)}), chosen


def _answers(model: Any, test: pd.DataFrame, classes: np.ndarray | None) -> pd.DataFrame:  # noqa: ANN401
    if classes is None:
        return pd.DataFrame({"number": model.predict(test)})
    return pd.DataFrame(model.predict_proba(test), columns=[str(label) for label in classes])


if __name__ == "__main__":
    main()
