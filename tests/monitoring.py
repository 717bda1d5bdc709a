"""What the dashboard and the alert rules ask Prometheus for, to compare with what the services tell it."""

import json
import re
from pathlib import Path

import yaml
from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics

FOLDER = Path(__file__).resolve().parents[1] / "docs/monitoring"
# Prometheus makes these itself.
OF_PROMETHEUS = {"up"}
_KEYWORDS = {"and", "or", "unless", "on", "ignoring", "group_left", "group_right", "by", "without", "bool"}
_NO_METRICS = re.compile(
    r"\"[^\"]*\"|{[^}]*}|\[[^]]*\]|\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)"
)
_NAME = re.compile(r"\b[a-zA-Z_:][a-zA-Z0-9_:]*\b(?!\s*\()")


def expressions() -> list[str]:
    """Return every query of the dashboard and of the alert rules."""
    dashboard = json.loads((FOLDER / "dashboard.json").read_text())
    alerts = yaml.safe_load((FOLDER / "alerts.yml").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    return queries + [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]


def used(*prefixes: str) -> set[str]:
    """Return the names of the metrics that are asked for, or those of them with one of these prefixes."""
    names: set[str] = set()
    for expression in expressions():
        names |= set(_NAME.findall(_NO_METRICS.sub("", expression))) - _KEYWORDS
    return {name for name in names if name.startswith(prefixes or ("",))}


def scraped(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Read what a service told Prometheus, as strictly as that does: values by name and labels."""
    reader = openmetrics if text.endswith("# EOF\n") else parser
    families = reader.text_string_to_metric_families(text)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def value(text: str, name: str, **labels: str) -> float:
    """Return one sample's value, 0 if there is no such sample."""
    return scraped(text).get((name, frozenset(labels.items())), 0.0)


def names(text: str) -> set[str]:
    """Return the names of all samples."""
    return {name for name, _ in scraped(text)}
