"""Challenge: a training's best model becomes a version, meets the champion at the gate, and may replace it.

The champion is loaded by `serving.model`, as the app and the REST service load it: a version that could run
code (a pickle, a type that isn't on the written list) is never loaded. It counts as one that can't be asked.
"""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from serving import model as serving_model
from serving.cells import level
from serving.contract import VersionTag
from serving.errors import ModelUnusableError
from serving.signature import Signature
from training import gate
from training.algorithms import BASELINE
from training.course import Course, Outcome
from training.data import Data
from training.fitted import FittedRows
from training.gate import Contender
from training.hashing import are_numbers
from training.predictions import Predictions, predict
from training.problem import Problem
from training.registry import Registry

_NAMED = 5
_FEWEST = 5  # rows that can judge


class ChampionError(Exception):
    """A version that can't be asked for predictions; the message says why."""


def challenge(registry: Registry, course: Course) -> Outcome:
    """Register a problem's winner, and make it champion if it passes the gate.

    Args:
        registry: Where to.
        course: A training that has come to its end.

    Raises:
        MlflowException: The server refused.
    """
    problem, data = course.problem, course.data
    champion = registry.champion(problem.name)
    held = champion.version if champion else ""
    winner = gate.challenger(course.results, problem.scoring)
    if isinstance(winner, str):
        text = f"nothing registered: {winner}"
        return Outcome(text, version=held, tags={VersionTag.GATE_DECISION: "none", VersionTag.REASON: winner})
    logged = course.logged[winner.algorithm]
    version = registry.register(problem, winner, logged.run_id, logged.model_id)
    contender = Contender(
        version,
        winner.algorithm,
        data.digest,
        course.predictions[winner.algorithm],
        course.predictions[BASELINE],
        leak=next((finding.text for finding in course.findings if finding.stops), ""),
        threshold=problem.threshold,
    )
    rows = np.ones(len(data.y_test), dtype=bool)
    if champion is not None:
        try:
            asked = ask(registry, problem.name, held, data.x_test)
            rows = new_rows(problem, data, asked)
            champion = replace(champion, predictions=asked.predictions.of(rows), threshold=asked.threshold)
            contender = replace(contender, predictions=course.predictions[winner.algorithm].of(rows))
        except ChampionError as error:
            champion = replace(champion, predictions=str(error))
    decision = gate.decide(problem, contender, champion, data.y_test[rows], len(rows))
    registry.record(problem.name, version, decision)
    tags = {**decision.numbers, VersionTag.REASON: decision.reason, "mlstack.version": version}
    if decision.action == "keep":
        what = "champion kept" if held else "no champion"
        return Outcome(f"{what}: {decision.reason}", "challenger", winner.algorithm, held, tags)
    registry.promote(problem.name, version, by="gate", reason=decision.reason)
    text = f"version {version} is the champion now: {decision.reason}"
    return Outcome(text, "champion", winner.algorithm, version, tags)


@dataclass(frozen=True)
class Asked:
    """A version that was asked.

    Attributes:
        predictions: What it said.
        columns: The columns that it took.
        fitted: The rows that it was fitted on; None if it doesn't say.
        threshold: The probability at which it decides; None for no threshold.
    """

    predictions: Predictions
    columns: list[str]
    fitted: FittedRows | None
    threshold: float | None = None


def ask(registry: Registry, name: str, version: str, x: pd.DataFrame) -> Asked:
    """Load a version and ask it. Nothing of it stays on the disk.

    Args:
        registry: Where it is.
        name: The registered model.
        version: Its version number.
        x: Rows with at least the columns that the model takes.

    Raises:
        ChampionError: It can't be loaded, lacks columns, or fails on these rows.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="mlstack-") as folder:
            fetched = registry.download(name, version, Path(folder))
            champion = serving_model.load(fetched, name, version)
            columns = _columns(champion.signature, x)
            rows = _as_fitted(x[columns], champion.signature)
            threshold = champion.profile.threshold if champion.profile else None
            return Asked(
                predict(champion.estimator, rows),
                columns,
                FittedRows.read(fetched),
                threshold.value if threshold else None,
            )
    except ChampionError:
        raise
    except ModelUnusableError as error:
        raise ChampionError(f"it can't be loaded: {str(error).removesuffix('.')}") from error
    except Exception as error:  # whatever a model raises is why it can't be asked
        said = " ".join(str(error).split())[:300]
        raise ChampionError(f"it can't be loaded or asked ({type(error).__name__}: {said})") from error


def new_rows(problem: Problem, data: Data, asked: Asked) -> np.ndarray:
    """Return which rows of the holdout a version was not fitted on.

    Args:
        problem: The problem whose model it is.
        data: The problem's data.
        asked: The version.

    Returns:
        A boolean for each row.

    Raises:
        ChampionError: Too few, or that can't be known.
    """
    if asked.fitted is None:
        # Before versions kept their rows, it was the columns in use and their types that split the table.
        texts = (data.x_test[name].dropna().unique() for name in data.schema.categories)
        moved = problem.drop or problem.data.rename or any(are_numbers(levels).any() for levels in texts)
        if set(asked.columns) == set(data.x_test.columns) and not moved:
            return np.ones(len(data.y_test), dtype=bool)
        raise ChampionError("it is from an earlier release, and doesn't say which rows it was fitted on")
    if problem.split is None or data.units is None:
        known = asked.fitted.hold(data.x_test[asked.columns], data.y_test)
    elif asked.fitted.split == str(problem.split):
        known = asked.fitted.cover(problem.split, data.units)
    else:
        # It may know the holdout's groups, or what came later, by rows that are equal to none of these.
        raise ChampionError(
            f"its rows were split {asked.fitted.split or 'by what each of them holds'}, not {problem.split}"
        )
    new = ~known
    if new.sum() < _FEWEST and not new.all():
        raise ChampionError(
            f"it was fitted on all but {new.sum()} of the {len(new)} holdout rows ({_FEWEST} are wanted)"
        )
    missing = set(data.y_test) - set(data.y_test[new]) if problem.task == "classification" else set()
    if missing:
        raise ChampionError(f"it was fitted on all holdout rows of the class {min(missing)!r}")
    return new


def _columns(signature: Signature, x: pd.DataFrame) -> list[str]:
    """Return the columns that a model takes, in its order."""
    missing = [c.name for c in signature.columns if c.required and c.name not in x.columns]
    if missing:
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        raise ChampionError(
            f"it takes columns that the data no longer have: {', '.join(missing[:_NAMED])}{more}"
        )
    return [name for name in signature.names if name in x.columns]


def _as_fitted(x: pd.DataFrame, signature: Signature) -> pd.DataFrame:
    """Return booleans as the words that they are to a model from before, if some were missing then."""
    rules = signature.rules.columns if signature.rules else {}
    words = [name for name in x.columns if name in rules and rules[name].gaps]
    return x.assign(**{name: pd.Series(map(level, x[name]), x.index, dtype=object) for name in words})
