"""What a training does to MLflow, cut down to what the app reads."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow
import mlflow.sklearn
import pandas as pd
from mlflow.models import infer_signature

from serving.contract import CHAMPION


@dataclass
class Store:
    """A registry, and the folder that its artifacts go to."""

    folder: Path
    client: mlflow.MlflowClient = field(default_factory=mlflow.MlflowClient)

    def log(self, name: str, model: Any, examples: pd.DataFrame, **options: Any) -> str:
        """Registers a model with the tags of a training and makes it the champion."""
        if not mlflow.get_experiment_by_name(name):
            mlflow.create_experiment(name, artifact_location=(self.folder / name).as_uri())
            self.client.create_registered_model(name, description=f"All about {name}.\nMore.")
        options.setdefault("signature", infer_signature(examples, model.predict(examples)))
        experiment = mlflow.get_experiment_by_name(name).experiment_id
        with mlflow.start_run(experiment_id=experiment) as run:
            info = mlflow.sklearn.log_model(
                model, name="model", input_example=examples, pip_requirements=["scikit-learn"], **options
            )
        record = self.client.create_model_version(
            name, info.model_uri, run.info.run_id, model_id=info.model_id
        )
        for key, value in {"model": "some_model", "metric": "accuracy", "holdout_score": "0.9712"}.items():
            self.client.set_model_version_tag(name, record.version, key, value)
        self.promote(name, str(record.version))
        return str(record.version)

    def promote(self, name: str, version: str) -> None:
        """Moves the alias."""
        self.client.set_registered_model_alias(name, CHAMPION, version)
