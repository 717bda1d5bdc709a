"""Registry: who is challenger, champion and champion before, and that nothing is ever half there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from serving.contract import CHALLENGER, CHAMPION
from training.gate import Contender, Decision
from training.registry import Registry, RegistryError

if TYPE_CHECKING:
    from collections.abc import Callable

    from training.results import Result

# MLflow 3.17 calls pandas and SQLAlchemy in ways that their next versions will refuse; not ours to change.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning"),
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
]

WINE: Any = SimpleNamespace(name="wine", task="classification", metric="f1_macro", description="which wine")


@pytest.fixture
def client(store: MlflowClient) -> MlflowClient:
    return store


@pytest.fixture
def registry(client: MlflowClient) -> Registry:
    return Registry(client.tracking_uri, "v1")


@pytest.fixture
def candidate(
    client: MlflowClient, registry: Registry, make_result: Callable[..., Result]
) -> Callable[..., str]:
    """Register one more version, of a model that was never saved."""

    def register(model: str = "knn", mean: float = 0.9) -> str:
        experiment = client.get_experiment_by_name("wine").experiment_id
        run = client.create_run(experiment).info.run_id
        logged = client.create_logged_model(experiment, name="model", source_run_id=run)
        return registry.register(WINE, make_result(model, mean, problem="wine"), run, logged.model_id)

    return register


def aliases(client: MlflowClient) -> dict[str, str]:
    return {alias: str(version) for alias, version in client.get_registered_model("wine").aliases.items()}


def tags(client: MlflowClient, version: str) -> dict[str, str]:
    return client.get_model_version("wine", version).tags


def test_a_registered_model_is_challenger_and_says_what_it_is(
    client: MlflowClient, registry: Registry, candidate: Callable[..., str]
) -> None:
    assert registry.champion("wine") is None  # no such model
    assert candidate("knn") == "1"
    assert registry.champion("wine") is None  # no champion
    assert candidate("svc", 0.95) == "2"
    assert aliases(client) == {CHALLENGER: "2"}
    assert client.get_registered_model("wine").description == "which wine"
    known = tags(client, "2")
    assert {
        key: known[key] for key in ("task", "metric", "cv_score", "model", "data_digest", "code_version")
    } == {
        "task": "classification",
        "metric": "f1_macro",
        "cv_score": "0.95",
        "model": "svc",
        "data_digest": "d1",
        "code_version": "v1",
    }
    assert {"cv_std", "holdout_score"} <= set(known)


def test_a_version_that_cannot_be_challenger_is_not_left_behind(
    client: MlflowClient, candidate: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate()

    def refuse(*_: object) -> None:
        raise MlflowException("lost")

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", refuse)
    with pytest.raises(MlflowException, match="lost"):
        candidate()
    assert [str(v.version) for v in client.search_model_versions("name='wine'")] == ["1"]
    assert aliases(client) == {CHALLENGER: "1"}


def test_the_gates_decision_is_on_the_version(
    client: MlflowClient, registry: Registry, candidate: Callable[..., str]
) -> None:
    version = candidate()
    registry.record("wine", version, Decision("keep", "a tie", {"gate_rows": "36", "gate_decision": "keep"}))
    known = tags(client, version)
    assert (known["gate_rows"], known["gate_decision"], known["promotion"]) == ("36", "keep", "a tie")
    assert known["gate_at"].endswith("Z")
    assert client.get_model_version("wine", version).description == "a tie"
    assert aliases(client) == {CHALLENGER: version}


def test_a_promotion_moves_the_champion_and_ends_the_challenge(
    client: MlflowClient, registry: Registry, candidate: Callable[..., str]
) -> None:
    candidate("knn")
    move = registry.promote("wine", None, by="gate", reason="the first")
    assert (move.version, move.before.champion, move.changed) == ("1", "", True)
    assert aliases(client) == {CHAMPION: "1"}
    assert registry.champion("wine") == Contender("1", "knn", "d1")
    candidate("svc")
    candidate("mlp")
    move = registry.promote("wine", "2", by="ana", reason="she says so")
    assert move.before.describe(move.before.champion) == "version 1 (knn)"
    assert aliases(client) == {CHAMPION: "2", CHALLENGER: "3"}  # another one's challenge goes on
    known = tags(client, "2")
    assert (known["previous_champion"], known["promoted_by"], known["promotion"]) == (
        "1",
        "ana",
        "she says so",
    )
    assert known["promoted_at"].endswith("Z")
    assert tags(client, "1")["previous_champion"] == "none"
    assert not registry.promote("wine", "2", by="bob", reason="again").changed
    assert tags(client, "2") == known


def test_the_champion_moves_after_its_record(
    client: MlflowClient, registry: Registry, candidate: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate()
    registry.promote("wine", None, by="gate", reason="r")
    candidate()
    with monkeypatch.context() as broken:

        def refuse(*_: object) -> None:
            raise MlflowException("lost")

        broken.setattr(MlflowClient, "set_model_version_tag", refuse)
        with pytest.raises(MlflowException, match="lost"):
            registry.promote("wine", None, by="gate", reason="r")
    assert aliases(client) == {CHAMPION: "1", CHALLENGER: "2"}


def test_rollbacks_go_further_back_and_never_in_a_circle(
    client: MlflowClient, registry: Registry, candidate: Callable[..., str]
) -> None:
    for _ in range(3):
        candidate()
        registry.promote("wine", None, by="gate", reason="r")
    registry.promote("wine", "1", by="ana", reason="back to the roots")  # 1, 2, 3, 1
    went = []
    for _ in range(3):
        move = registry.rollback("wine", by="bob", reason="wrong")
        went.append((move.before.champion, move.version))
        assert aliases(client)[CHAMPION] == move.version
    assert went == [("1", "3"), ("3", "2"), ("2", "1")]
    with pytest.raises(RegistryError, match=r"nothing to roll back to.*Name a version"):
        registry.rollback("wine", by="bob", reason="wrong")
    assert tags(client, "3")["previous_champion"] == "2"  # whom it replaced is still known
    assert tags(client, "3")["rolled_back"].startswith("to version 2 by bob at 2")
    assert (tags(client, "2")["promoted_by"], tags(client, "2")["promotion"]) == ("bob", "wrong")
    registry.promote("wine", "3", by="ana", reason="r")
    assert registry.rollback("wine", by="ana", reason="r").version == "1"


def test_the_history_survives_other_hands(
    client: MlflowClient, registry: Registry, candidate: Callable[..., str]
) -> None:
    for _ in range(4):
        candidate()
    client.set_registered_model_alias("wine", CHAMPION, "1")  # in MLflow's pages
    registry.promote("wine", "2", by="gate", reason="r")
    client.set_registered_model_alias("wine", CHAMPION, "3")
    registry.promote("wine", "4", by="gate", reason="r")
    client.delete_model_version("wine", "3")
    assert registry.rollback("wine", by="ana", reason="r").version == "2"  # the one before is gone
    client.delete_registered_model_alias("wine", CHAMPION)
    assert registry.rollback("wine", by="ana", reason="r").version == "2"  # whoever was last
    assert registry.rollback("wine", by="ana", reason="r").version == "1"


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (("wime", "1"), r"expected one of wine; got 'wime'. Did you mean 'wine'\?"),
        (("w'ine", None), r"expected one of wine"),
        (
            ("wine", "7"),
            r"(?s)wine has no version 7. It has\n +3 .* knn .*f1_macro 0.9 +champion\n +2 .*\n +1 ",
        ),
        (("wine", None), r"(?s)wine has no challenger.*--version.*It has\n +3"),
        (("wine", "2"), r"version 2 .svc. isn't READY but FAILED_REGISTRATION"),
    ],
)
def test_refusals_say_what_there_is(
    client: MlflowClient,
    registry: Registry,
    candidate: Callable[..., str],
    asked: tuple[str, str | None],
    reason: str,
) -> None:
    for model in ("knn", "svc", "knn"):
        candidate(model)
    registry.promote("wine", None, by="gate", reason="r")
    found = client.search_model_versions("name='wine'")
    for known in found:
        known._status = "FAILED_REGISTRATION" if str(known.version) == "2" else "READY"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MlflowClient, "search_model_versions", lambda *_: found)
        with pytest.raises(RegistryError, match=reason):
            registry.promote(*asked, by="ana", reason="r")
    assert aliases(client) == {CHAMPION: "3"}


def test_nothing_registered_yet_says_how_to_begin(registry: Registry) -> None:
    with pytest.raises(RegistryError, match=r"python -m training.train_all_models"):
        registry.rollback("wine", by="ana", reason="r")
