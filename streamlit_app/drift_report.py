"""Which champions are asked about other rows than those they were trained on: JSON for `health`, on demand.

    python3 -m streamlit_app.drift_report

Prints a list; each model with `name`, `version`, `rows` of the last week, the `drifted` columns, and `text`.
"""

import json
from datetime import timedelta
from typing import Any

from streamlit_app import activity
from streamlit_app.drift import Drift
from streamlit_app.registry import Registry

_SPAN = timedelta(days=7)
_NAMED = 4


def report(registry: Registry, path: str) -> list[dict[str, Any]]:
    """Compare what each champion was asked lately with its training data.

    Args:
        registry: The models; one without a champion, or without a profile of its training data, is left out.
        path: The log of predictions.
    """
    found = []
    for model in registry.models():
        profile = registry.card(model.name, model.champion).profile if model.champion else None
        if model.champion and profile:
            rows, columns = activity.drift(path, model.name, model.champion, profile, _SPAN)
            drifted = [column for column in columns if column.verdict == "drifted"]
            names = [column.name for column in drifted]
            text = _sentence(drifted) if drifted else f"{rows} rows of the last {_SPAN.days} days, no drift"
            found.append(
                {"name": model.name, "version": model.champion, "rows": rows, "drifted": names, "text": text}
            )
    return found


def _sentence(drifted: list[Drift]) -> str:
    names = ", ".join(column.name for column in drifted[:_NAMED])
    more = f" and {len(drifted) - _NAMED} more" if len(drifted) > _NAMED else ""
    return f"{names}{more} drifted in the last {_SPAN.days} days. {drifted[0].name}: {drifted[0].text}"


def main() -> None:
    """Print the report; an empty list where no log is kept."""
    path = activity.file()
    print(json.dumps(report(Registry.from_environment(), path) if path else []))


if __name__ == "__main__":
    main()
