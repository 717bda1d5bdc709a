"""Course: how far the training of one problem has come, and what came of it so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from training.problem import Problem
from training.results import Result

if TYPE_CHECKING:
    from training.checks import Finding
    from training.data import Data
    from training.predictions import Predictions


@dataclass(frozen=True)
class Logged:
    """Where a completed model is kept in MLflow."""

    run_id: str
    model_id: str


@dataclass(frozen=True)
class Outcome:
    """How a problem's promotion ended, for people.

    Attributes:
        text: The decision with its numbers and reason.
        status: What became of the winner, in the leaderboard's words.
        winner: Name of the algorithm that leads; empty if none does.
        version: The version that is champion in the end; empty if there is none.
        tags: The decision for the training's run.
        error: Whether registering went wrong.
    """

    text: str = ""
    status: str = "ok"
    winner: str = ""
    version: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    error: bool = False


@dataclass
class Course:
    """The training of one problem.

    Attributes:
        problem: What is trained.
        data: Its split table.
        experiment_id: Its experiment; empty until MLflow has answered.
        run_id: The run of the whole training; likewise.
        results: One for each algorithm that has ended, in that order.
        predictions: What each fitted model says of the holdout, by algorithm.
        logged: Where each model is kept, by algorithm.
        findings: How the checks ended.
        outcome: How its promotion ended.
    """

    problem: Problem
    data: Data
    experiment_id: str = ""
    run_id: str = ""
    results: list[Result] = field(default_factory=list)
    predictions: dict[str, Predictions] = field(default_factory=dict)
    logged: dict[str, Logged] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    outcome: Outcome = Outcome()
