"""Run the service: python -m scoring --port 8080. What it serves and keeps comes from the environment."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence

# One row is too little to share among threads of OpenMP and BLAS. It counts only before numpy is imported.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import uvicorn  # noqa: E402

from scoring.service import Settings, create_app  # noqa: E402
from serving.activity import ActivityLog  # noqa: E402
from serving.client import Client  # noqa: E402
from serving.model import prepare_process  # noqa: E402

_SWITCH_SECONDS = 0.001  # while a thread loads a model, requests get the interpreter back five times as often


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until the process receives a signal to stop.

    Args:
        argv: Command line, without the program's name.

    Returns:
        The exit status: 2 if a setting is wrong.
    """
    parser = argparse.ArgumentParser(prog="python -m scoring", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="port to listen on (default: %(default)s)")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    sys.setswitchinterval(_SWITCH_SECONDS)
    prepare_process()
    try:
        app = create_app(
            Settings.from_environment(), Client.from_environment(), ActivityLog.from_environment()
        )
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    uvicorn.run(
        app,
        host=options.host,
        port=options.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=20,
        server_header=False,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
