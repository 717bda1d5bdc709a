"""Following the registry: new champions, bad ones, MLflow away, restarts."""

import re
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import mlflow
import pytest
import skops.io
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from serving.model import ModelUnusableError, load
from tests.monitoring import value
from tests.planted import REFUSALS, ROWS, plant, plant_code
from tests.scoring.service import Running, models, serve, wait_until
from tests.stage import Stage, save, staged

NAME = "diabetes"
MODEL, EXAMPLES, SIGNATURE = models()[NAME]
ROW = {"dataframe_records": EXAMPLES.head(1).to_dict("records")}


@pytest.fixture(scope="module")
def constants(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two models whose answer says which they are: 1 and 2."""
    folder = tmp_path_factory.mktemp("constants")
    return [
        save(
            folder / str(answer),
            DummyRegressor(strategy="constant", constant=float(answer)).fit(EXAMPLES, [float(answer)] * 5),
            EXAMPLES,
            SIGNATURE,
        )
        for answer in (1, 2)
    ]


def ask(running: Running) -> Any:
    answer = httpx.post(f"{running.url}/invocations", json=ROW)
    return answer.json()["predictions"][0] if answer.status_code == 200 else answer.text


@pytest.mark.slow
def test_no_request_is_lost_while_the_champion_changes(tmp_path: Path, constants: list[Path]) -> None:
    """Ten changes under a hundred requests a second, each answer from the version that its header names."""
    with staged(tmp_path) as stage:
        versions = [stage.register(NAME, constants[n % 2]) for n in range(2)]
        with serve(tmp_path, stage.uri) as running:
            ended = threading.Event()
            seen: Counter[tuple[int, str, float | None]] = Counter()

            def hundred_a_second(share: int) -> None:
                with httpx.Client() as client:
                    due = time.monotonic()
                    while not ended.is_set():
                        due += share / 100
                        time.sleep(max(0, due - time.monotonic()))
                        answer = client.post(f"{running.url}/invocations", json=ROW)
                        value = answer.json().get("predictions", [None])[0]
                        seen[answer.status_code, answer.headers.get("mlstack-model-version", ""), value] += 1

            threads = [threading.Thread(target=hundred_a_second, args=(4,)) for _ in range(4)]
            for thread in threads:
                thread.start()
            for change in range(10):
                # Every other change is a version that is new to the service.
                if change % 2:
                    wanted = versions[change % len(versions)]
                    stage.promote(NAME, wanted)
                else:
                    wanted = stage.register(NAME, constants[len(versions) % 2])
                    versions.append(wanted)
                wait_until(lambda wanted=wanted: running.health()["models"][NAME]["version"] == wanted, 30)
            ended.set()
            for thread in threads:
                thread.join()
    answers = {(int(version), value) for (_, version, value) in seen}
    assert {status for status, _, _ in seen} == {200}, seen
    assert all(value == 1 + (version - 1) % 2 for version, value in answers), seen
    assert len(answers) >= 5
    assert sum(seen.values()) > 500


@pytest.fixture
def running(stage: Stage, tmp_path: Path) -> Iterator[Running]:
    with serve(tmp_path, stage.uri, MLSTACK_SCORING_DEFAULT_MODEL="swapped") as running:
        yield running


@pytest.mark.slow
def test_a_champion_that_cannot_be_loaded_leaves_the_old_one(
    stage: Stage, running: Running, constants: list[Path], tmp_path: Path
) -> None:
    first = stage.register("swapped", constants[0])
    wait_until(lambda: ask(running) == 1.0)
    pickled = tmp_path / "pickled"
    mlflow.sklearn.save_model(
        MODEL,
        str(pickled),
        serialization_format="cloudpickle",
        signature=SIGNATURE,
        pip_requirements=["scikit-learn"],
    )
    bad = stage.register("swapped", pickled)
    wait_until(lambda: running.health()["status"] == "degraded")
    state = running.health()["models"]["swapped"]
    assert (state["version"], state["champion"]) == (first, bad)
    assert "Expected a scikit-learn model in skops format" in state["error"]
    told = httpx.get(f"{running.url}/metrics").text
    assert value(told, "mlstack_scoring_model_load_failures_total", model="swapped") == 1
    assert value(told, "mlstack_scoring_champion_unserved", model="swapped") == 1
    assert value(told, "mlstack_scoring_model_info", model="swapped", version=first) == 1
    assert ask(running) == 1.0
    good = stage.register("swapped", constants[1])
    wait_until(lambda: ask(running) == 2.0)
    assert running.health()["status"] == "ok"
    kept = {path.name for path in (running.log.parent / "models" / "swapped").iterdir()}
    assert kept == {first, good}
    stage.client.delete_registered_model_alias("swapped", "champion")
    wait_until(lambda: "swapped" not in running.health()["models"])
    assert "Expected a registered model with a champion; got 'swapped'" in ask(running)
    # The name made anew counts from 1 again: what was kept under it is not taken for the new version 1.
    stage.client.delete_registered_model("swapped")
    stage.register("swapped", constants[1])
    wait_until(lambda: ask(running) == 2.0)


@pytest.mark.slow
def test_mlflow_may_go_and_the_service_may_start_without_it(tmp_path: Path, constants: list[Path]) -> None:
    with staged(tmp_path) as stage:
        stage.register(NAME, constants[0])
        with serve(tmp_path, stage.uri) as running:
            assert ask(running) == 1.0
    with serve(tmp_path, stage.uri) as running:
        assert ask(running) == 1.0
        health = running.health()
        assert (health["status"], health["mlflow"]["reachable"]) == ("degraded", False)
        assert "is not answering" in health["mlflow"]["error"]
        assert httpx.get(f"{running.url}/ping").status_code == 200
    empty = tmp_path / "empty"
    empty.mkdir()
    with serve(empty, stage.uri) as running:
        assert httpx.get(f"{running.url}/ping").status_code == 503
        assert running.health()["status"] == "degraded"
        assert "Models that are served: none" in ask(running)


def test_only_a_model_that_looks_for_its_columns_by_name_gets_a_frame(tmp_path: Path) -> None:
    by_name = make_pipeline(ColumnTransformer([("some", "passthrough", ["bmi", "age"])]), Ridge())
    by_name.fit(EXAMPLES, range(5))
    for kind, model in {"array": MODEL, "frame": by_name}.items():
        loaded = load(save(tmp_path / kind, model, EXAMPLES, SIGNATURE), NAME, "1")
        assert loaded._as_array == (kind == "array")
        table = loaded.signature.from_rows(EXAMPLES.to_numpy())
        assert table is not None
        assert loaded.predict(table) == model.predict(EXAMPLES).tolist()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: (folder / "model.skops").write_bytes(b"none"), "BadZipFile"),
        (lambda folder: (folder / "MLmodel").write_text("flavors: {}"), "without a signature"),
        (lambda folder: (folder / "MLmodel").unlink(), "FileNotFoundError"),
        (
            lambda folder: (folder / "MLmodel").write_text(
                (folder / "MLmodel").read_text().replace("pickled_model: model.skops", "pickled_model: ../x")
            ),
            "outside of its folder",
        ),
        (
            lambda folder: (folder / "input_example.json").write_text('{"columns": ["age"], "data": [[1]]}'),
            "expected this column",
        ),
    ],
)
def test_a_broken_version_is_refused_with_a_reason(tmp_path: Path, change: Any, words: str) -> None:
    folder = save(tmp_path / "model", MODEL, EXAMPLES, SIGNATURE)
    change(folder)
    with pytest.raises(ModelUnusableError, match=words):
        load(folder, NAME, "1")


def test_types_that_are_not_on_the_list_are_not_loaded(tmp_path: Path) -> None:
    model = make_pipeline(FunctionTransformer(textwrap.dedent), Ridge()).set_params(
        functiontransformer__func=None
    )
    model.fit(EXAMPLES, range(5)).set_params(functiontransformer__func=textwrap.dedent)
    folder = save(tmp_path / "model", MODEL, EXAMPLES, SIGNATURE)
    skops.io.dump(model, folder / "model.skops")
    with pytest.raises(ModelUnusableError, match=r"UntrustedTypesFoundException: .*textwrap\.dedent"):
        load(folder, NAME, "1")


@pytest.mark.slow
def test_planted_code_is_refused_with_a_reason_and_not_run(stage: Stage, tmp_path: Path) -> None:
    """Each plant lies in a real registry as a champion; see tests/planted.py."""
    with serve(tmp_path, stage.uri) as running:
        names = {kind: f"planted {kind}" for kind in REFUSALS}
        markers = {kind: tmp_path / f"{kind}.ran" for kind in REFUSALS}
        for kind, name in names.items():
            stage.register(name, plant(kind, tmp_path / kind, markers[kind]))
        wait_until(lambda: set(names.values()) <= running.health()["models"].keys())
        found = running.health()["models"]
        for kind, name in names.items():
            assert re.search(REFUSALS[kind], found[name]["error"])
            assert found[name]["version"] is None
            answer = httpx.post(
                f"{running.url}/models/{quote(name)}/invocations", json={"instances": ROWS.to_dict("records")}
            )
            assert answer.status_code == 503
            assert re.search(REFUSALS[kind], answer.json()["message"])
        for name in names.values():
            stage.client.delete_registered_model(name)
    assert not [marker.name for marker in markers.values() if marker.exists()]


@pytest.mark.slow
def test_code_of_one_version_never_answers_for_another(stage: Stage, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    with serve(tmp_path, stage.uri) as running:
        for version, factor in (("1", 1), ("2", 1000)):
            stage.register("own code", plant_code(tmp_path / version, marker, factor))
            wait_until(lambda v=version: running.health()["models"].get("own code", {}).get("champion") == v)
            assert running.health()["models"]["own code"]["version"] is None
        stage.client.delete_registered_model("own code")
    assert not marker.exists()
