"""Challenge: a training's best model becomes a version, meets the champion at the gate, and may replace it.

The champion is loaded by `serving.model`, as the app and the REST service load it: a version that could run
code (a pickle, a type that isn't on the written list) is never loaded. It counts as one that can't be asked.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import pandas as pd

from serving import model as serving_model
from serving.contract import VersionTag
from serving.errors import ModelUnusableError
from serving.signature import Signature
from training import gate
from training.course import Course, Outcome
from training.gate import Contender
from training.predictions import Predictions, predict
from training.registry import Registry

_NAMED = 5


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
    if champion is not None:
        try:
            answered: Predictions | str = ask(registry, problem.name, held, data.x_test)
        except ChampionError as error:
            answered = str(error)
        champion = replace(champion, predictions=answered)
    contender = Contender(version, winner.algorithm, data.digest, course.predictions[winner.algorithm])
    decision = gate.decide(problem, contender, champion, data.y_test)
    registry.record(problem.name, version, decision)
    tags = {**decision.numbers, VersionTag.REASON: decision.reason, "mlstack.version": version}
    if decision.action == "keep":
        return Outcome(f"champion kept: {decision.reason}", "challenger", winner.algorithm, held, tags)
    registry.promote(problem.name, version, by="gate", reason=decision.reason)
    text = f"version {version} is the champion now: {decision.reason}"
    return Outcome(text, "champion", winner.algorithm, version, tags)


def ask(registry: Registry, name: str, version: str, x: pd.DataFrame) -> Predictions:
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
            return predict(champion.estimator, x[_columns(champion.signature, x)])
    except ChampionError:
        raise
    except ModelUnusableError as error:
        raise ChampionError(f"it can't be loaded: {str(error).removesuffix('.')}") from error
    except Exception as error:  # whatever a model raises is why it can't be asked
        said = " ".join(str(error).split())[:300]
        raise ChampionError(f"it can't be loaded or asked ({type(error).__name__}: {said})") from error


def _columns(signature: Signature, x: pd.DataFrame) -> list[str]:
    """Return the columns that a model takes, in its order."""
    missing = [c.name for c in signature.columns if c.required and c.name not in x.columns]
    if missing:
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        raise ChampionError(
            f"it takes columns that the data no longer have: {', '.join(missing[:_NAMED])}{more}"
        )
    return [name for name in signature.names if name in x.columns]
