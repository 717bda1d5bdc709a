"""Gate: decide whether a training's best model becomes the champion. The one place for that rule.

The winner by cross-validation must beat the baseline; then it becomes a version with the alias challenger and
stands before the gate. There it is compared with the champion on rows that neither was fitted on, both asked
now. It is promoted if it is better by the margin, and still better on most draws of those rows (a paired
bootstrap, see judging.py): a lucky holdout alone makes no champion. Where there is no champion yet, the
baseline takes its place. A leak (see leaks.py) closes the gate, for then all scores are too good to be true.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from serving.contract import VersionTag
from training.algorithms import BASELINE
from training.console import number
from training.judging import paired_improvement, score
from training.leaderboard import best
from training.metrics import Metric
from training.predictions import Predictions, ScoringError
from training.problem import Problem
from training.results import Result

# Below this relative difference two scores are the same one, rounded differently by another machine.
TIE = 1e-6


@dataclass(frozen=True)
class Contender:
    """A model version at the gate.

    Attributes:
        version: Its version number.
        algorithm: Its name.
        data_digest: Fingerprint of the data that it was trained on.
        predictions: What it says of the holdout, asked now; or why it can't be asked.
        baseline: What the baseline of its training says of the same rows, likewise.
        leak: What its training found that must not be promoted; empty if nothing.
        threshold: The probability at which it decides, where costs ask for one.
    """

    version: str
    algorithm: str = "unknown"
    data_digest: str = ""
    predictions: Predictions | str = "it wasn't asked"
    baseline: Predictions | str = "it wasn't asked"
    leak: str = ""
    threshold: float | None = None

    def __str__(self) -> str:
        """Name it for people."""
        return f"version {self.version} ({self.algorithm})"


@dataclass(frozen=True)
class Decision:
    """What the gate decided, and why.

    Attributes:
        action: Whether the challenger becomes champion.
        reason: One line for people, with the numbers.
        numbers: The same for programs: tags of the challenger's version.
    """

    action: Literal["promote", "keep"]
    reason: str
    numbers: Mapping[str, str]


def challenger(results: Iterable[Result], metric: Metric) -> Result | str:
    """Choose the result that is worth registering.

    Args:
        results: All results of one problem.
        metric: What ranks them.

    Returns:
        The best by cross-validation, or the reason why there is none.
    """
    results = list(results)
    winner = best(results, metric)
    if winner is None:
        return "no model was trained to the end"
    baseline = next((r for r in results if r.algorithm == BASELINE), None)
    if baseline is None or not baseline.completed:
        why = baseline.error if baseline else "it was not started"
        return (
            f"expected a baseline that the best, {winner.algorithm}, beats; got none ({why}). "
            "Mend that, and train again"
        )
    if not metric.better(winner.mean, baseline.mean) or _same(winner.mean, baseline.mean):
        return (
            f"the best, {winner.algorithm} with {metric.label} {number(winner.mean)}, doesn't beat "
            f"the baseline's {number(baseline.mean)}"
        )
    return winner


def decide(
    problem: Problem, contender: Contender, champion: Contender | None, actual: np.ndarray, held_out: int = 0
) -> Decision:
    """Decide whether a challenger replaces the champion.

    Args:
        problem: What both predict, with the gate's settings.
        contender: The challenger, with its predictions.
        champion: The present champion, if there is one, with its predictions or why it has none.
        actual: The true values of the holdout's rows that neither was fitted on.
        held_out: How many rows the holdout has in all; as many if not given.

    Raises:
        ScoringError: The challenger has no score by the problem's metric.
    """
    value = _score(problem, contender, actual)
    rows = f"{len(actual)} holdout rows"
    if champion is not None and len(actual) < held_out:
        rows = (
            f"the {len(actual)} of {held_out} holdout rows that version {champion.version} was not fitted on"
        )
    score_text = f"{problem.scoring.label} {number(value)} on {rows}"
    numbers = {"gate_challenger": repr(value), "gate_rows": str(len(actual))}
    if contender.leak:
        reason = f"{contender} with {score_text} is not promoted, because of a leak (T3): {contender.leak}"
        return _decision("keep", reason, {**numbers, "gate_leak": contender.leak})
    if champion is None:
        return _first(problem, contender, score_text, actual, numbers)
    numbers["gate_against_version"] = champion.version
    try:
        held = _score(problem, champion, actual)
    except ScoringError as error:
        return _by_policy(problem, contender, champion, str(error), numbers)
    return _compare(problem, (contender, value), (champion, held), (actual, rows), numbers)


def _first(
    problem: Problem, one: Contender, score_text: str, actual: np.ndarray, numbers: Mapping[str, str]
) -> Decision:
    """Let the baseline take the place of a champion."""
    try:
        baseline = _predictions(one.baseline)
        held = score(problem, baseline, actual)
        drawn = paired_improvement(problem, _predictions(one.predictions), baseline, actual)
    except ScoringError as error:
        reason = (
            f"{one} with {score_text} can't be compared with the baseline: {error}. {_by_hand(problem, one)}"
        )
        return _decision("keep", reason, {**numbers, "gate_incomparable": str(error)})
    confidence = _share_better(drawn, TIE * abs(held))
    numbers = {
        **numbers,
        "gate_baseline": repr(held),
        "gate_baseline_confidence": f"{confidence:.4f}",
        **_ends(drawn),
    }
    if confidence >= problem.gate.confidence:
        return _decision("promote", f"{one} with {score_text} is the first champion", numbers)
    reason = (
        f"{one} with {score_text} doesn't clearly beat the baseline's {number(held)} there: better on "
        f"{confidence:.1%} of {len(drawn)} draws of these rows ({problem.gate.confidence:.1%} wanted). "
        f"{_by_hand(problem, one)}"
    )
    return _decision("keep", reason, numbers)


def _compare(
    problem: Problem,
    challenger: tuple[Contender, float],
    champion: tuple[Contender, float],
    judged: tuple[np.ndarray, str],
    numbers: Mapping[str, str],
) -> Decision:
    (one, value), (other, held), (actual, rows) = challenger, champion, judged
    gate, metric = problem.gate, problem.scoring
    improvement = (value - held) * (1 if metric.greater_is_better else -1)
    drawn = paired_improvement(
        problem, _predictions(one.predictions), _predictions(other.predictions), actual
    )
    confidence = _share_better(drawn, TIE * abs(held))
    numbers = {
        **numbers,
        "gate_champion": repr(held),
        VersionTag.GATE_IMPROVEMENT: repr(improvement),
        VersionTag.GATE_CONFIDENCE: f"{confidence:.4f}",
        **_ends(drawn),
    }
    scores = f"{metric.label} {number(value)} against {number(held, value)} on {rows}"
    if one.data_digest != other.data_digest:
        scores += (
            f" (version {other.version} was trained on {'other' if other.data_digest else 'unknown'} data)"
        )
    if not _decides_alike(one, other) and confidence > 1 - gate.confidence:
        reason = (
            f"{one} replaces {other}: by the problem's costs it decides at a threshold of {_at(one)} instead "
            f"of {_at(other)}, and it isn't clearly worse: {scores}"
        )
        return _decision("promote", reason, numbers)
    if _same(value, held):
        return _decision("keep", f"{one} equals {other}: {scores}; a tie keeps the champion", numbers)
    if improvement < 0:
        return _decision("keep", f"{one} is worse than {other}: {scores}", numbers)
    wide = improvement >= gate.min_improvement - TIE * abs(held)
    sure = confidence >= gate.confidence
    terms = (
        f"better by {number(improvement)} (at least {number(gate.min_improvement)} wanted) and "
        f"on {confidence:.1%} of {len(drawn)} draws of these rows ({gate.confidence:.1%} wanted)"
    )
    if wide and sure:
        return _decision("promote", f"{one} beats {other}: {scores}; {terms}", numbers)
    return _decision("keep", f"{one} doesn't clearly beat {other}: {scores}; {terms}", numbers)


def _by_policy(
    problem: Problem, one: Contender, other: Contender, why: str, numbers: Mapping[str, str]
) -> Decision:
    policy = problem.gate.if_incomparable
    reason = (
        f"{one} can't be compared with {other}: {why}; by the problem's gate (if_incomparable: {policy}) "
        f"the {'challenger takes over' if policy == 'promote' else 'champion stays'}"
    )
    if policy == "keep":
        reason += f". {_by_hand(problem, one)}"
    return _decision(policy, reason, {**numbers, "gate_incomparable": why})


def _by_hand(problem: Problem, one: Contender) -> str:
    return (
        f"To promote it by hand: ansible-playbook playbooks/promote.yml -e model_name={problem.name} "
        f"-e version={one.version}, or python -m training.promote {problem.name} --version {one.version}"
    )


def _decision(action: Literal["promote", "keep"], reason: str, numbers: Mapping[str, str]) -> Decision:
    return Decision(action, reason, {**numbers, VersionTag.GATE_DECISION: action})


def _predictions(asked: Predictions | str) -> Predictions:
    if isinstance(asked, str):
        raise ScoringError(asked)
    return asked


def _score(problem: Problem, contender: Contender, actual: np.ndarray) -> float:
    return score(problem, _predictions(contender.predictions), actual)


def _share_better(drawn: np.ndarray, tie: float) -> float:
    """Return the share of draws that are better, where a tie counts half; 0 if nothing could be drawn."""
    return float(np.mean((drawn > tie) + 0.5 * (np.abs(drawn) <= tie))) if len(drawn) else 0.0


def _decides_alike(one: Contender, other: Contender) -> bool:
    """Return whether both decide at the same threshold; costs that change should reach who asks."""
    if one.threshold is None or other.threshold is None:
        return one.threshold is other.threshold
    return _same(one.threshold, other.threshold)


def _at(contender: Contender) -> str:
    return "0.5" if contender.threshold is None else f"{contender.threshold:.3g}"


def _ends(drawn: np.ndarray) -> dict[str, str]:
    """Return the 95 % interval of the improvement over the champion, or the baseline in its place."""
    if not len(drawn):
        return {}
    low, high = np.percentile(drawn, (2.5, 97.5)).tolist()
    return {"gate_low": repr(low), "gate_high": repr(high)}


def _same(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=TIE)
