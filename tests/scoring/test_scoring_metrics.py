"""What the service tells Prometheus after real requests."""

import httpx

from tests.monitoring import names, scraped, used, value
from tests.scoring.service import Running

ROWS = {
    "dataframe_records": [{"age": 31.0, "visits": 1, "member": True, "city": "Bonn", "since": "2020-01-01"}]
    * 3
}


def metrics(service: Running) -> str:
    answer = httpx.get(f"{service.url}/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return answer.text


def test_requests_rows_and_time_are_counted_by_model(service: Running) -> None:
    labels = {"operation": "models", "model": "mixed"}
    before = metrics(service)
    assert httpx.post(f"{service.url}/models/mixed/invocations", json=ROWS).status_code == 200
    assert httpx.post(f"{service.url}/models/mixed/invocations", json={"inputs": 1}).status_code == 400
    after = metrics(service)

    def more(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    assert more("mlstack_scoring_requests_total", status="200", **labels) == 1
    assert more("mlstack_scoring_requests_total", status="400", **labels) == 1
    assert more("mlstack_scoring_request_seconds_count", **labels) == 2
    assert more("mlstack_scoring_predictions_total", model="mixed", version="1") == 3
    assert not used("mlstack_scoring_") - names(after)


def test_unknown_names_make_no_series(service: Running) -> None:
    httpx.post(f"{service.url}/models/nobody-0/invocations", json=ROWS)
    before = scraped(metrics(service))
    for i in range(1, 20):
        assert httpx.post(f"{service.url}/models/nobody-{i}/invocations", json=ROWS).status_code == 404
    after = scraped(metrics(service))
    assert after.keys() == before.keys()
    key = frozenset({("operation", "models"), ("model", ""), ("status", "404")})
    name = "mlstack_scoring_requests_total"
    assert after[name, key] - before[name, key] == 19


def test_looks_are_not_counted(service: Running) -> None:
    def requests() -> float:
        text = metrics(service)
        return sum(n for (name, _), n in scraped(text).items() if name == "mlstack_scoring_requests_total")

    before = requests()
    for path in ("health", "ping", "metrics", "models"):
        httpx.get(f"{service.url}/{path}")
    for asked, status in ((ROWS, 200), ({"inputs": 1}, 400)):
        url = f"{service.url}/models/mixed/invocations"
        assert httpx.post(url, json=asked, headers={"Mlstack-Unlogged": "1"}).status_code == status
    assert requests() == before


def test_versions_that_answer_are_named(service: Running) -> None:
    text = metrics(service)
    for model in ("cancer", "diabetes", "mixed"):
        assert value(text, "mlstack_scoring_model_info", model=model, version="1") == 1
        assert value(text, "mlstack_scoring_champion_unserved", model=model) == 0
    assert value(text, "mlstack_scoring_mlflow_reachable") == 1
