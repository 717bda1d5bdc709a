"""The service's description of itself: OpenAPI 3.1, with the columns of the models that it serves now."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from scoring.requests import CSV, JSON, PARQUET
from serving.model import LoadedModel
from serving.signature import Column

PAGE = """<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>mlstack scoring</title>
  <link rel="stylesheet" href="static/swagger-ui.css">
  <link rel="icon" href="static/favicon.png">
</head>
<body>
  <div id="page"></div>
  <script src="static/swagger-ui-bundle.js"></script>
  <script>SwaggerUIBundle({url: "openapi.json", dom_id: "#page", deepLinking: true});</script>
</body>
</html>
"""

_TYPES: dict[str, dict[str, Any]] = {
    "double": {"type": "number"},
    "float": {"type": "number", "minimum": -3.4e38, "maximum": 3.4e38},
    "long": {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    "integer": {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1},
    "boolean": {"type": "boolean"},
    "string": {"type": "string"},
    "datetime": {"type": "string", "format": "date-time", "description": "ISO 8601 without a time zone"},
}
_ANY = {"type": ["number", "string", "boolean", "null"]}
_REFUSALS = {
    "400": "The body can't be read or doesn't fit the model; `fields` names what is wrong, and where.",
    "404": "No such model; the message lists those that are served.",
    "408": "The body arrived too slowly.",
    "413": "Too many bytes, rows or columns.",
    "415": "The media type, charset or encoding is not supported.",
    "429": "Too many requests at once.",
    "500": "The model or the service failed; see the service's log.",
    "503": "The models are still being loaded, or this one can't be loaded.",
}
_HEADERS = {
    "mlstack-model": {"description": "The registered model that answered.", "schema": {"type": "string"}},
    "mlstack-model-version": {"description": "Its version.", "schema": {"type": "string"}},
}


def describe(models: Sequence[LoadedModel], default: str | None, max_rows: int) -> dict[str, Any]:
    """Describe the service.

    Args:
        models: The loaded models.
        default: The model of `/invocations`, if there is one.
        max_rows: The most rows of a request.
    """
    asked = next((model for model in models if model.name == default), None)
    paths = {"/invocations": _invocations("Predict, as with MLflow's scoring server", asked, max_rows)}
    for model in models:
        name = quote(model.name, safe="")
        paths[f"/models/{name}/invocations"] = _invocations(
            f"Predict with {model.name}, version {model.version}", model, max_rows, answer="NamedAnswer"
        )
        paths[f"/endpoints/{name}/invocations"] = _invocations(
            f"Predict with {model.name}, as with a SageMaker endpoint",
            model,
            max_rows,
            error="SageMakerError",
        )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "mlstack scoring",
            "version": "1",
            "description": "The champion of each registered model. It changes automatically when another"
            " version is promoted; the headers of each answer name the version that gave it.",
        },
        "paths": paths
        | {
            "/ping": _get("Is a model ready?", "Yes.", None, {"503": "No model is loaded."}),
            "/health": _get(
                "What state is the service in?",
                "Models answer, perhaps with older versions than they should.",
                _ref("Health"),
                {
                    "503": (
                        "Still starting, or no champion can be loaded.",
                        _ref("Health"),
                    )
                },
            ),
            "/version": _get("Which MLflow version does it follow?", "The version.", None),
            "/models": _get("Which models are served?", "The models.", _ref("Models")),
        },
        "components": {"schemas": _SCHEMAS},
    }


def _invocations(
    summary: str, model: LoadedModel | None, max_rows: int, answer: str = "Answer", error: str = "Error"
) -> dict[str, Any]:
    text = {"schema": {"type": "string"}}
    return {
        "post": {
            "summary": summary,
            "tags": [model.name if model else "predict"],
            "requestBody": {
                "required": True,
                "content": {
                    JSON: {"schema": _body(model, max_rows), **_example(model)},
                    CSV: text
                    | ({"example": _csv_example(model)} if model and model.example is not None else {}),
                    PARQUET: {"schema": {"type": "string", "format": "binary"}},
                },
            },
            "responses": {
                "200": {
                    "description": "An answer for each row.",
                    "headers": _HEADERS,
                    "content": {JSON: {"schema": _ref(answer)}},
                },
                **{
                    status: {"description": why, "content": {JSON: {"schema": _ref(error)}}}
                    for status, why in _REFUSALS.items()
                },
            },
        }
    }


def _body(model: LoadedModel | None, max_rows: int) -> dict[str, Any]:
    columns = model.signature.columns if model else ()
    names = [column.name for column in columns]
    rows = {"minItems": 1, "maxItems": max_rows}
    record = {
        "type": "object",
        "properties": {column.name: _value(column) for column in columns},
        "required": [column.name for column in columns if column.required],
    }
    line = {"prefixItems": [_value(c) for c in columns], "minItems": len(columns), "maxItems": len(columns)}
    split = {
        "type": "object",
        "properties": {
            "columns": {"type": "array", "items": {"type": "string"}, **({"const": names} if model else {})},
            "data": {
                "type": "array",
                "items": {"type": "array", **(line if model else {"items": _ANY})},
                **rows,
            },
            "index": {"type": "array"},
        },
        "required": ["columns", "data"],
        "additionalProperties": False,
    }
    by_column = {
        "type": "object",
        "properties": {c.name: {"type": "array", "items": _value(c), **rows} for c in columns},
        "required": record["required"],
    }
    forms: dict[str, tuple[dict[str, Any], str]] = {
        "dataframe_split": (split, "`DataFrame.to_dict('split')`"),
        "dataframe_records": ({"type": "array", "items": record, **rows}, "One object per row"),
        "instances": ({"type": "array", "items": record, **rows}, "One object per row"),
        "inputs": (by_column, "One list per column, all of the same length"),
    }
    params = {"params": {"type": "object"}}
    return {
        "anyOf": [
            {
                "title": form,
                "type": "object",
                "properties": {form: schema | {"description": text}} | params,
                "required": [form],
                "additionalProperties": False,
            }
            for form, (schema, text) in forms.items()
        ]
    }


def _value(column: Column) -> dict[str, Any]:
    schema = _TYPES[column.type]
    return schema if column.required else schema | {"type": [schema["type"], "null"]}


def _example(model: LoadedModel | None) -> dict[str, Any]:
    if model is None or model.example is None:
        return {}
    rows = model.example.head(2).astype(object)
    split = rows.where(rows.notna(), None).to_dict("split")
    return {"example": {"dataframe_split": {"columns": split["columns"], "data": split["data"]}}}


def _csv_example(model: LoadedModel) -> str:
    return str(model.example.head(2).to_csv(index=False)) if model.example is not None else ""


def _get(
    summary: str, good: str, schema: dict[str, Any] | None, bad: dict[str, Any] | None = None
) -> dict[str, Any]:
    def response(what: Any) -> dict[str, Any]:  # noqa: ANN401 - text, or text and a schema
        text, content = what if isinstance(what, tuple) else (what, None)
        return {"description": text, "content": {JSON: {"schema": content} if content else {}}}

    responses = {"200": response((good, schema))} | {
        code: response(what) for code, what in (bad or {}).items()
    }
    return {"get": {"summary": summary, "tags": ["service"], "responses": responses}}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(required: dict[str, Any], **more: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    return {"type": "object", "properties": required, "required": list(required), **more}


_TEXT = {"type": "string"}
_TEXT_OR_NULL = {"type": ["string", "null"]}
_STATE = {"version": _TEXT_OR_NULL, "champion": _TEXT, "loaded_at": _TEXT_OR_NULL, "error": _TEXT_OR_NULL}
_ERROR = {
    "error_code": _TEXT,
    "message": _TEXT,
    "fields": {
        "type": "array",
        "items": _object({"field": _TEXT, "row": {"type": ["integer", "null"]}, "reason": _TEXT}),
    },
}
_PREDICTIONS = {"predictions": {"type": "array", "minItems": 1}}
_SCHEMAS = {
    "Answer": _object(_PREDICTIONS, additionalProperties=False),
    "NamedAnswer": _object(
        _PREDICTIONS | {"model": _object({"name": _TEXT, "version": _TEXT})}, additionalProperties=False
    ),
    "Error": _object(_ERROR, additionalProperties=False),
    "SageMakerError": _object(
        _ERROR | {"OriginalStatusCode": {"type": "integer"}, "OriginalMessage": _TEXT},
        additionalProperties=False,
    ),
    "Health": _object(
        {
            "status": {"enum": ["ok", "degraded", "failing", "empty", "starting"]},
            "mlflow": _object(
                {"reachable": {"type": "boolean"}, "checked_at": _TEXT_OR_NULL, "error": _TEXT_OR_NULL}
            ),
            "models": {"type": "object", "additionalProperties": _object(_STATE)},
        }
    ),
    "Models": _object(
        {
            "models": {
                "type": "array",
                "items": _object(
                    {"name": _TEXT}
                    | _STATE
                    | {
                        "default": {"type": "boolean"},
                        "invocations": _TEXT,
                        "columns": {
                            "type": "array",
                            "items": _object({"name": _TEXT, "type": _TEXT, "required": {"type": "boolean"}}),
                        },
                    }
                ),
            }
        }
    ),
}
