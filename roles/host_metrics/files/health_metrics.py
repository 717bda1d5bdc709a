#!/usr/bin/python3
"""Write what the host's health check found as a file for the node exporter: health_metrics.py STATE PROM.

A check that has not looked yet leaves no file: then there is nothing to write, and an alert says so.
"""

import json
import sys
from pathlib import Path
from typing import Any

_VALUES = {"ok": 0, "warning": 1, "failed": 2}
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def metrics(state: dict[str, Any]) -> str:
    """Return a look in Prometheus' text format.

    Raises:
        KeyError: It is not what the health check writes.
    """
    checks = {f'key="{check["key"].translate(_ESCAPES)}"': check for check in state["checks"]}
    lines = [
        "# HELP mlstack_health_look_timestamp_seconds When the host was looked at last.",
        "# TYPE mlstack_health_look_timestamp_seconds gauge",
        f"mlstack_health_look_timestamp_seconds {state['time']}",
        *(
            (
                "# HELP mlstack_health_next_look_timestamp_seconds When the host is to be looked at next.",
                "# TYPE mlstack_health_next_look_timestamp_seconds gauge",
                f"mlstack_health_next_look_timestamp_seconds {state['next']}",
            )
            if state["next"]
            else ()
        ),
        "# HELP mlstack_health_check How a subject is: 0 well, 1 needs attention, 2 failed.",
        "# TYPE mlstack_health_check gauge",
        *(f"mlstack_health_check{{{key}}} {_VALUES[check['state']]}" for key, check in checks.items()),
        "# HELP mlstack_health_check_since_timestamp_seconds When it came into this state.",
        "# TYPE mlstack_health_check_since_timestamp_seconds gauge",
        *(
            f"mlstack_health_check_since_timestamp_seconds{{{key}}} {check['since']}"
            for key, check in checks.items()
            if check["since"]
        ),
    ]
    return "\n".join(lines) + "\n"


def main(source: str, target: str) -> int:
    """Write it as a whole or not at all; return the exit status."""
    try:
        text = metrics(json.loads(Path(source).read_bytes()))
    except FileNotFoundError:
        print(f"{source}: expected what the health check found; it has not looked yet")
        return 0
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        print(f"{source}: expected it as the health check writes it; got {type(error).__name__}: {error}")
        return 1
    part = Path(f"{target}.new")
    part.write_text(text)
    part.chmod(0o644)
    part.replace(target)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
