"""Run `mlflow server` as one process, whose application is the code in the first argument (app.py).

With jobs off, the command imports MLflow, starts uvicorn, and waits for it; waiting takes 190 MiB. Here
uvicorn takes its place instead.
"""

import os
import sys
from typing import Any, NoReturn

import mlflow.server
from mlflow.cli import cli


def become(command: list[str], *, extra_env: dict[str, str], **_: Any) -> NoReturn:  # noqa: ANN401
    """Replace this process by uvicorn, with the same options, where MLflow would start it beside this one."""
    python, _, module, *options, _ = command
    if module != "uvicorn":
        raise SystemExit(f"Expected MLflow to start uvicorn; got {' '.join(command)}. Adapt serve.py to it.")
    os.execvpe(python, [python, "-c", sys.argv[1], *options, "__main__:app"], {**os.environ, **extra_env})  # noqa: S606


mlflow.server._exec_cmd = become
cli(["server"])
