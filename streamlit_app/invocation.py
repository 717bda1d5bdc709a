"""A request and its answer as a program would send and receive them. Pure."""

import json
import shlex
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

from serving.profile import Value
from streamlit_app.models import AppModel, Prediction


def answer(model: AppModel, row: Mapping[str, Value], prediction: Prediction) -> str:
    """Return the answer as JSON, with its inputs and the version that answered."""
    found: dict[str, Any] = {"model": model.name, "version": model.version, "prediction": prediction.value}
    if prediction.probabilities:
        found["probabilities"] = prediction.probabilities
    return json.dumps(found | {"inputs": _plain(row)}, indent=2, ensure_ascii=False)


def curl(url: str, model: AppModel, row: Mapping[str, Value]) -> str:
    """Return the same question to the REST service, as a line for a shell."""
    body = json.dumps({"dataframe_records": [_plain(row)]}, ensure_ascii=False)
    place = f"{url.rstrip('/')}/models/{model.name}/invocations"
    return f"curl {shlex.quote(place)} \\\n  -H 'Content-Type: application/json' \\\n  -d {shlex.quote(body)}"


def _plain(row: Mapping[str, Value]) -> dict[str, Value]:
    return {name: _iso(value) if isinstance(value, date) else value for name, value in row.items()}


def _iso(value: date) -> str:
    moment = value if isinstance(value, datetime) else datetime.combine(value, datetime.min.time())
    return moment.isoformat()
