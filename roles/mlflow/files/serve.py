"""Run `mlflow server` as one process.

With jobs off, the command imports MLflow, starts uvicorn, and waits for it; waiting takes 190 MiB. Here
uvicorn takes its place instead. Should a later MLflow start its server another way, this changes nothing.
"""

import os
from typing import Any, NoReturn

import mlflow.server
from mlflow.cli import cli


def become(command: list[str], *, extra_env: dict[str, str], **_: Any) -> NoReturn:  # noqa: ANN401
    """Replace this process by a command, where MLflow would start it beside this one."""
    os.execvpe(command[0], command, {**os.environ, **extra_env})  # noqa: S606


mlflow.server._exec_cmd = become
cli(["server"])
