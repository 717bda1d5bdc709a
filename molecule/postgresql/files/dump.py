"""Print as JSON what MLflow's client finds, in an order that does not depend on the database."""

import json

import mlflow
from mlflow import MlflowClient
from mlflow.entities import ViewType

mlflow.set_tracking_uri("http://localhost:5000")
client = MlflowClient()
experiments = client.search_experiments(view_type=ViewType.ALL)
ids = [experiment.experiment_id for experiment in experiments]
runs = client.search_runs(ids, run_view_type=ViewType.ALL, max_results=1000)
traces = client.search_traces(locations=ids)
models = client.search_registered_models()
found = {
    "experiments": [dict(experiment) for experiment in experiments],
    "runs": [run.to_dictionary() for run in runs],
    "metrics": [
        (run.info.run_id, key, metric.step, metric.timestamp, metric.value)
        for run in runs
        for key in run.data.metrics
        for metric in client.get_metric_history(run.info.run_id, key)
    ],
    "traces": [trace.to_dict() for trace in traces],
    "models": [{**dict(model), "latest_versions": None} for model in models],
    "versions": [dict(version) for version in client.search_model_versions()],
}


def ordered(value: object) -> object:
    """Sort lists by their text, so that two databases' orders compare as equal."""
    if isinstance(value, dict):
        return {key: ordered(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return sorted((ordered(item) for item in value), key=str)
    return value


print(json.dumps(ordered(found), default=str, sort_keys=True))
