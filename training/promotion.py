"""Promotion: decide whether a training's best model becomes the champion. The one place for that rule."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from training.console import number
from training.zoo import BASELINE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from training.evaluation import ModelResult
    from training.problem import Metric

# Below this relative difference two scores are the same one, rounded differently by another machine.
TIE = 1e-6


@dataclass(frozen=True)
class Champion:
    """The model version that holds the alias now.

    Attributes:
        version: Its version number.
        model: Its name in the zoo.
        metric: Name of the scorer that judged it; empty if it wasn't registered by a training.
        cv_score: Its cross-validated score, a natural value.
        data_digest: Fingerprint of the data that it was scored on.
    """

    version: str
    model: str = "unknown"
    metric: str = ""
    cv_score: float = math.nan
    data_digest: str = ""


@dataclass(frozen=True)
class Decision:
    """What to do with the best model, and why, in words and numbers."""

    action: Literal["promote", "keep", "none"]
    reason: str
    winner: ModelResult | None = None


def best(results: Iterable[ModelResult], metric: Metric) -> ModelResult | None:
    """Return the completed model with the best cross-validated mean, never the baseline.

    Ties go to the one that comes first.
    """
    found: ModelResult | None = None
    for result in results:
        if result.model == BASELINE or not result.completed:
            continue
        if found is None or metric.better(result.mean, found.mean):
            found = result
    return found


def decide(results: Iterable[ModelResult], metric: Metric, champion: Champion | None) -> Decision:
    """Decide whether the best of these results replaces the champion.

    Args:
        results: All results of one problem.
        metric: The metric that ranks them.
        champion: The present champion, if there is one.

    Returns:
        ``promote`` (register the winner and move the alias), ``keep`` (the champion stays) or ``none``
        (nothing here is worth registering).
    """
    results = list(results)
    winner = best(results, metric)
    if winner is None:
        return Decision("none", "no model was trained to the end")
    score = f"{winner.model} with {metric.label} {number(winner.mean)}"
    baseline = next((r for r in results if r.model == BASELINE and r.completed), None)
    if baseline and not _clearly_better(metric, winner.mean, baseline.mean):
        return Decision(
            "none", f"the best, {score}, doesn't beat the baseline's {number(baseline.mean)}", winner
        )
    if champion is None:
        return Decision("promote", f"{score} is the first champion", winner)
    action, reason = _challenge(winner, metric, champion)
    return Decision(action, f"{score} {reason}", winner)


def _challenge(
    winner: ModelResult, metric: Metric, champion: Champion
) -> tuple[Literal["promote", "keep"], str]:
    """Compare a winner with the champion; scores compare only on the same data by the same metric."""
    held = f"version {champion.version} ({champion.model})"
    if not champion.metric:
        return "keep", (
            f"can't be compared with {held}, which wasn't registered by a training; to let it take over, "
            "remove the alias 'champion' and train again"
        )
    if champion.metric != metric.scorer:
        return "promote", f"replaces {held}, which was judged by another metric, {champion.metric}"
    if champion.data_digest != winner.data_digest:
        return "promote", f"replaces {held}, which was scored on other data"
    if _clearly_better(metric, winner.mean, champion.cv_score):
        return "promote", f"beats {held} with {number(champion.cv_score)}"
    if math.isclose(winner.mean, champion.cv_score, rel_tol=TIE):
        return "keep", f"equals {held}; a tie keeps the champion"
    return "keep", f"doesn't beat {held} with {number(champion.cv_score)}"


def _clearly_better(metric: Metric, one: float, other: float) -> bool:
    return metric.better(one, other) and not math.isclose(one, other, rel_tol=TIE)
