"""The service as a process of its own, before real clients: what it answers, refuses and survives."""

import contextlib
import http.client
import io
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import httpx
import pandas as pd
import pytest
import schemathesis
from botocore.config import Config
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks

from serving.activity import read_events, read_inputs, read_outputs
from tests.scoring.service import MIXED, Running, models, wait_until

pytestmark = pytest.mark.slow  # it starts MLflow

CANCER = models()["cancer"][1]
FIRST = CANCER.to_dict("records")[0]
ROW = {"dataframe_records": [FIRST]}
PARQUET = "application/vnd.apache.parquet"
SERVED = "Models that are served: cancer, diabetes, mixed"
ERROR_KEYS = {"error_code", "message", "fields"}


def post(service: Running, body: Any, path: str = "/invocations", **headers: str) -> httpx.Response:
    content = body if isinstance(body, (bytes, str)) else json.dumps(body)
    headers = {"Content-Type": "application/json"} | headers
    return httpx.post(service.url + path, content=content, headers=headers, timeout=60)


def assert_refused(answer: httpx.Response, status: int, words: str) -> None:
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert body.keys() >= ERROR_KEYS
    assert words in body["message"]
    assert "Traceback" not in answer.text


def test_every_answer_names_its_model(service: Running) -> None:
    named = {"model": {"name": "cancer", "version": "1"}}
    for place, more in {"": {}, "/models/cancer": named, "/endpoints/cancer": {}}.items():
        answer = post(service, ROW, f"{place}/invocations")
        assert answer.status_code == 200
        assert (answer.headers["mlstack-model"], answer.headers["mlstack-model-version"]) == ("cancer", "1")
        assert answer.json() == {"predictions": ["malignant"]} | more
    refused = post(service, {"inputs": {}}, "/models/diabetes/invocations")
    assert refused.headers["mlstack-model"] == "diabetes"


def test_one_process_serves_every_champion(service: Running) -> None:
    listed = httpx.get(f"{service.url}/models").json()["models"]
    assert [(m["name"], m["version"], m["default"]) for m in listed] == [
        ("cancer", "1", True),
        ("diabetes", "1", False),
        ("mixed", "1", False),
    ]
    paths = httpx.get(f"{service.url}/openapi.json").json()["paths"]
    for model in listed:
        content = paths[model["invocations"]]["post"]["requestBody"]["content"]
        answer = post(service, content["application/json"]["example"], model["invocations"])
        assert len(answer.json()["predictions"]) == 2


def test_mlflow_client_needs_only_another_address(service: Running) -> None:
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient  # noqa: PLC0415 - warns on import

    host, port = service.url.removeprefix("http://").split(":")
    client = ScoringServerClient(host, int(port))
    client.wait_server_ready(timeout=5)
    answers = client.invoke(CANCER).get_predictions()
    assert answers[0].tolist() == ["malignant"] * 5


def test_boto3_needs_only_another_endpoint_url(service: Running) -> None:
    runtime = boto3.client(
        "sagemaker-runtime",
        endpoint_url=service.url,
        region_name="eu-central-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",  # noqa: S106 - nobody looks at it
        config=Config(retries={"total_max_attempts": 1}),
    )
    bodies = {
        "application/json": json.dumps(ROW).encode(),
        "text/csv": CANCER.head(1).to_csv(index=False, header=False).encode(),
    }
    for kind, body in bodies.items():
        answer = runtime.invoke_endpoint(EndpointName="cancer", ContentType=kind, Body=body)
        assert json.loads(answer["Body"].read()) == {"predictions": ["malignant"]}
        assert answer["InvokedProductionVariant"] == "champion-1"
    with pytest.raises(runtime.exceptions.ModelError, match="mean radius") as failed:
        runtime.invoke_endpoint(EndpointName="cancer", Body=b'{"inputs": {"x": [1]}}')
    assert failed.value.response["OriginalStatusCode"] == 400
    with pytest.raises(runtime.exceptions.ClientError, match=SERVED):
        runtime.invoke_endpoint(EndpointName="nobody", Body=b"{}")


@pytest.mark.parametrize(
    ("body", "headers", "status", "words"),
    [
        (b"{", {}, 400, "Expected JSON"),
        (b"\xff\xfe", {}, 400, "Expected JSON"),
        (b"[" * 500_000, {}, 413, "rows"),
        (b"x" * (11 << 20), {}, 413, "at most 10 MiB; got a larger one"),
        (b"{}", {"Content-Type": "text/plain"}, 415, "text/plain"),
        (b"{}", {"Content-Encoding": "gzip"}, 415, "not compressed"),
        (
            ",".join(f"c{n}" for n in range(1_000_000)).encode(),
            {"Content-Type": "text/csv"},
            413,
            "1000000 columns",
        ),
        ("größe\n1".encode("latin-1"), {"Content-Type": "text/csv"}, 400, "expected text in UTF-8"),
        (
            b"PAR1" + b"\x00" * 1000 + b"PAR1",
            {"Content-Type": PARQUET},
            400,
            "Parquet",
        ),
        ({"dataframe_records": [{"mean radius": "\ud800"}]}, {}, 400, ""),
        ({"dataframe_records": [{"\ud800": 1}]}, {}, 400, ""),
        (
            {"instances": [FIRST | {"mean radius": float("nan")}]},
            {},
            400,
            "'mean radius' in row 0: expected a value; got null",
        ),
        (
            {"instances": [FIRST | {"mean radius": float("inf")}]},
            {},
            400,
            "'mean radius' in row 0: expected a finite number; got infinity",
        ),
    ],
    ids=str.split("json encoding bomb huge type packed columns csv parquet value name nan infinity"),
)
def test_bad_input_is_refused_and_the_service_goes_on(
    service: Running, body: Any, headers: dict[str, str], status: int, words: str
) -> None:
    assert_refused(post(service, body, **headers), status, words)
    assert post(service, ROW).status_code == 200


def test_a_body_that_does_not_say_its_length_is_bounded_too(service: Running) -> None:
    def parts() -> Any:
        for _ in range(12):
            yield b"x" * (1 << 20)

    answer = httpx.post(f"{service.url}/invocations", content=parts(), timeout=60)
    assert_refused(answer, 413, "at most 10 MiB; got a larger one")


def test_unknown_places_are_refused_in_the_same_shape(service: Running) -> None:
    assert_refused(post(service, ROW, "/models/nobody/invocations"), 404, SERVED)
    assert_refused(post(service, ROW, "/nowhere"), 404, "/docs")
    assert_refused(httpx.get(f"{service.url}/invocations"), 405, "/docs")


def test_memory_stays_bounded_whatever_is_sent(service: Running) -> None:
    def peak() -> int:
        status = Path(f"/proc/{service.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) >> 10

    before = peak()
    row = ",".join(["1e5"] * 30)
    bodies = [
        b'{"inputs": {' + b",".join(b'"%x":0' % n for n in range(900_000)) + b"}}",
        b'{"instances": [' + b"0.1," * 2_400_000 + b"1]}",
        b"[" + b"[]," * 3_000_000 + b"[]]",
    ]
    with ThreadPoolExecutor(4) as pool:
        statuses = [a.status_code for a in pool.map(lambda body: post(service, body), bodies * 2)]
        csv = f"{','.join(CANCER.columns)}\n" + f"{row}\n" * 80_000
        statuses.append(post(service, csv, **{"Content-Type": "text/csv"}).status_code)
    assert set(statuses) <= {400, 413, 429}
    assert peak() - before < 300
    assert post(service, ROW).status_code == 200


def test_large_tables_are_answered(service: Running) -> None:
    table = pd.concat([CANCER] * 400)
    file = io.BytesIO()
    table.to_parquet(file)
    answers = [
        post(service, {"dataframe_split": table.to_dict("split")}),
        post(service, table.to_csv(index=False), **{"Content-Type": "text/csv"}),
        post(service, file.getvalue(), **{"Content-Type": PARQUET}),
    ]
    assert [answer.json()["predictions"] for answer in answers] == [["malignant"] * 2000] * 3


def test_a_connection_may_be_dropped_at_any_moment(service: Running) -> None:
    host, port = service.url.removeprefix("http://").split(":")
    for _ in range(20):
        connection = http.client.HTTPConnection(host, int(port))
        connection.putrequest("POST", "/invocations")
        connection.putheader("Content-Length", "1000000")
        connection.endheaders(b'{"inputs"')
        connection.close()
    assert post(service, ROW).status_code == 200
    assert "Traceback" not in service.log.read_text()


def test_predictions_are_written_down(service: Running) -> None:
    log = service.log.parent / "predictions.sqlite"
    rows = MIXED.tail(2).assign(since=MIXED["since"].dt.strftime("%Y-%m-%d"))
    answer = post(service, {"dataframe_records": rows.to_dict("records")}, "/models/mixed/invocations")
    refused = post(service, {"dataframe_records": [{}]}, "/models/mixed/invocations")
    assert (answer.status_code, refused.status_code) == (200, 400)
    wait_until(lambda: read_events(log, "mixed")["status"].tolist()[-2:] == [200, 400], 10)
    assert read_inputs(log, "mixed")["city"].tolist()[-2:] == ["Köln", "Mainz"]
    assert read_outputs(log, "mixed").tolist()[-2:] == answer.json()["predictions"]


def test_a_check_is_not_written_down(service: Running) -> None:
    log = service.log.parent / "predictions.sqlite"
    rows = MIXED.tail(2).assign(since=MIXED["since"].dt.strftime("%Y-%m-%d"))
    before = len(read_events(log, "mixed"))
    url = f"{service.url}/models/mixed/invocations"
    for more in ({"Mlstack-Unlogged": "1"}, {}):  # the second is written after the first would have been
        httpx.post(url, json={"dataframe_records": rows.to_dict("records")}, headers=more).raise_for_status()
    wait_until(lambda: len(read_events(log, "mixed")) > before, 10)
    assert len(read_events(log, "mixed")) == before + 1


def test_the_page_needs_nothing_from_elsewhere(service: Running) -> None:
    page = httpx.get(f"{service.url}/docs").text
    assert "http" not in page
    for asset in ("static/swagger-ui-bundle.js", "static/swagger-ui.css"):
        assert asset in page
        assert httpx.get(f"{service.url}/{asset}").status_code == 200
    assert httpx.get(service.url, follow_redirects=True).url.path == "/docs"


def test_ping_health_and_version(service: Running) -> None:
    assert httpx.get(f"{service.url}/ping").status_code == 200
    assert httpx.get(f"{service.url}/version").text.count(".") == 2
    health = service.health()
    assert health["status"] == "ok"
    assert health["mlflow"]["reachable"]
    assert health["models"]["cancer"]["error"] is None
    assert time.time() - pd.Timestamp(health["mlflow"]["checked_at"]).timestamp() < 60


_CHECKS = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]


def test_no_request_of_its_own_description_breaks_it(service: Running) -> None:
    seen = set()
    for found in schemathesis.openapi.from_url(f"{service.url}/openapi.json").get_all_operations():
        operation = found.ok()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            @settings(max_examples=15, deadline=None, database=None, suppress_health_check=list(HealthCheck))
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: schemathesis.Case) -> None:
                response = case.call()
                seen.add(response.status_code)
                case.validate_response(response, checks=_CHECKS)

            with contextlib.suppress(Unsatisfiable):  # nothing is wrong with a GET without parameters
                ask()
    assert seen >= {200, 400}
