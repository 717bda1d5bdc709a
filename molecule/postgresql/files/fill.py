"""Log a bit of everything through MLflow's client. Runs in the MLflow container."""

import mlflow
import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Metric, Param

mlflow.set_tracking_uri("http://localhost:5000")
client = MlflowClient()
for name in ("wine", "Zürich 'quoted' %"):
    experiment = client.create_experiment(name, tags={"owner": "Zoë"})
    for number in range(3):
        run = client.create_run(experiment, tags={"note": "50% \"q\" 'r' \\ ünï"}).info.run_id
        history = [Metric("loss", 1 / (step + 1), 1_700_000_000_000 + step, step) for step in range(500)]
        odd = [Metric("nan", float("nan"), 1, 0), Metric("inf", float("inf"), 1, 0)]
        client.log_batch(
            run, metrics=history + odd, params=[Param("depth", str(number)), Param("long", "x" * 6000)]
        )
        client.set_terminated(run)
    client.delete_run(run)

mlflow.set_experiment("wine")
with mlflow.start_run():
    mlflow.log_input(mlflow.data.from_numpy(np.eye(2), name="eye"), context="training", tags={"fold": "1"})
    mlflow.log_text("kept by the server", "note.txt")
with mlflow.start_span("root") as span:
    span.set_inputs({"rows": [1, None, "é"]})
    span.set_outputs({"ok": True})
mlflow.flush_trace_async_logging()

for model in ("wine", "digits"):
    client.create_registered_model(model, tags={"kind": "test"}, description="ä")
    for _ in range(2):
        client.create_model_version(model, "s3://bucket/model", run, tags={"size": "1"})
    client.set_registered_model_alias(model, "champion", "1")
