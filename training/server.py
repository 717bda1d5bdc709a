"""The MLflow server before it is used: where it is, whether it answers, and which code talks to it.

Nothing here imports MLflow, so that a server that doesn't answer is reported at once.
"""

import os
import shutil
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

from training.refusals import UsageError

_CONNECT_SECONDS = 5


def default_uri() -> str:
    """Return the tracking URI where none is given: the environment's, else this machine's."""
    return os.environ.get("MLFLOW_TRACKING_URI") or "http://localhost:5000"


def check_uri(uri: str) -> None:
    """Refuse an invalid tracking URI.

    Raises:
        UsageError: It has no scheme.
    """
    if "://" not in uri:
        raise UsageError(f"--tracking-uri {uri}: expected a URI such as http://localhost:5000")


def unreachable(uri: str) -> str:
    """Say what is wrong with an MLflow server that doesn't answer; nothing if it does."""
    if not uri.startswith(("http://", "https://")):
        return ""  # a database URI: MLflow itself says what is wrong with it
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=_CONNECT_SECONDS):  # noqa: S310 - http only
            return ""
    except urllib.error.HTTPError as error:
        reason = f"answered HTTP {error.code}"
    except (OSError, ValueError) as error:
        reason = str(getattr(error, "reason", error))
    return (
        f"MLflow can't be reached at {uri} ({reason}). Is it running? Start one with "
        "'mlflow server --port 5000', or name another with --tracking-uri or MLFLOW_TRACKING_URI"
    )


def code_version() -> str:
    """Return the version of this code: from the image that holds it, else from git."""
    stated = os.environ.get("MLSTACK_CODE_VERSION", "")
    git = shutil.which("git")
    if stated or not git:
        return stated or "unknown"
    asked = subprocess.run(  # noqa: S603 - fixed arguments
        [git, "describe", "--always", "--dirty", "--exclude=*"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.stdout.strip() or "unknown"
