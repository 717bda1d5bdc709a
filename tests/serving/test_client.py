"""Names that need care in a query or an address, before a real MLflow server; and servers that are none."""

import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.client import Champion, Client
from serving.errors import AbsentError, ArtifactsUnreachableError, RegistryAwayError
from tests.stage import Stage, staged

NAMES = [
    "O'Brien's",
    'say "hi"',
    "both ' and \"",
    "späße 東京",
    "a b",
    "100%_sure",
    "back\\slash",
    "a+b&c=d#e",
]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A server with a model for each name, two versions each, and one more whose name is much alike."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "sub folder").mkdir()
    (folder / "MLmodel").write_text("text")
    (folder / "sub folder" / "größe 100%.txt").write_bytes(b"0" * 3_000_000)
    with staged(tmp_path_factory.mktemp("mlflow")) as stage:
        for name in [*NAMES, "O_Brien_s"]:
            stage.register(name, folder, promote=False)
            stage.register(name, folder)
        yield stage


@pytest.fixture
def client(stage: Stage) -> Client:
    return Client(stage.uri, timeout=30)


def test_every_name_is_listed_with_its_champion(client: Client) -> None:
    champions = client.champions()
    assert set(champions) == {*NAMES, "O_Brien_s"}
    assert {champion.version for champion in champions.values()} == {"2"}
    assert all(isinstance(c, Champion) and c.model_created > 0 for c in champions.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_name_finds_its_own_versions_and_files(client: Client, name: str, tmp_path: Path) -> None:
    assert [(v.name, v.number) for v in client.versions(name)] == [(name, "2"), (name, "1")]
    assert client.version(name, "1").run_id
    assert client.read(name, "2", "MLmodel") == b"text"
    client.download(name, "1", tmp_path)
    assert (tmp_path / "sub folder" / "größe 100%.txt").stat().st_size == 3_000_000


@pytest.mark.parametrize("name", [*NAMES, "team/a's"])
def test_an_experiments_name_may_hold_anything(client: Client, stage: Stage, name: str) -> None:
    made = stage.client.create_experiment(name)
    run = stage.client.create_run(made, run_name="training x", tags={"mlflow.note.content": name})
    stage.client.log_metric(run.info.run_id, "nothing", float("nan"))
    stage.client.log_text(run.info.run_id, "[1]", "plots/a b.json")
    assert client.experiment(name) == made
    (found,) = client.runs(made, "attributes.run_name LIKE 'training %'", ["attributes.start_time DESC"], 1)
    assert (found.id, found.tags["mlflow.note.content"]) == (run.info.run_id, name)
    assert found.metrics["nothing"] != found.metrics["nothing"]
    assert client.run_files(found, "plots") == ["plots/a b.json"]
    assert client.read_run_file(found, "plots/a b.json") == b"[1]"


def test_what_is_not_there_is_said_to_be_absent(client: Client) -> None:
    assert client.experiment("nobody") is None
    assert client.versions("nobody") == []
    for ask in (
        lambda: client.version("nobody", "1"),
        lambda: client.read("a b", "9", "MLmodel"),
        lambda: client.read("a b", "1", "nothing"),
        lambda: client.run("0" * 32),
    ):
        with pytest.raises(AbsentError, match="no such thing"):
            ask()


def test_files_that_do_not_come_through_mlflow(client: Client, stage: Stage, tmp_path: Path) -> None:
    experiment = stage.client.create_experiment("elsewhere", artifact_location=tmp_path.as_uri())
    run = stage.client.create_run(experiment)
    with pytest.raises(ArtifactsUnreachableError, match=r"Expected files behind MLflow .*; got file:"):
        client.run_files(client.run(run.info.run_id), "plots")


def test_threads_share_one_client(client: Client) -> None:
    failed: list[Exception] = []

    def ask() -> None:
        try:
            for _ in range(5):
                assert client.read("a b", "1", "MLmodel") == b"text"
        except Exception as error:  # noqa: BLE001 - it is asserted below
            failed.append(error)

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


class _Quirky(http.server.BaseHTTPRequestHandler):
    """What is no MLflow: pages, and answers that never come."""

    def do_GET(self) -> None:
        if "registered-models" in self.path:
            time.sleep(5)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>hello</html>")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_what_is_no_mlflow_is_told_in_seconds() -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Quirky)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client = Client(f"http://127.0.0.1:{server.server_port}", timeout=0.3)
    try:
        with pytest.raises(RegistryAwayError, match="an answer that is not JSON"):
            client.run("1")
        begun = time.monotonic()
        with pytest.raises(RegistryAwayError, match="is not answering") as away:
            client.champions()
        assert time.monotonic() - begun < 4
        assert "timed out" in away.value.detail
    finally:
        server.shutdown()
        server.server_close()


def test_nobody_listens() -> None:
    with pytest.raises(
        RegistryAwayError, match=r"MLflow at `http://127\.0\.0\.1:1` is not answering"
    ) as away:
        Client("http://127.0.0.1:1").champions()
    assert "refused" in away.value.detail


def test_an_address_of_another_kind() -> None:
    with pytest.raises(
        ValueError, match=r"Expected MLflow at an http or https address; got 'sqlite:///x.db'"
    ):
        Client("sqlite:///x.db")


def test_an_operator_may_set_another_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "9")
    assert Client.from_environment()._query.read_timeout == 9
