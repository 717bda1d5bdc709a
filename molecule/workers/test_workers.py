"""Trainings on two hosts: who may, that the numbers are those of one host, and what a death costs."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import testinfra
from testinfra.backend.base import CommandResult
from testinfra.host import Host

Playbook = Callable[..., "CompletedProcess[str]"]
SSH_CONFIG = Path(__file__).parents[2] / ".cache/molecule/molecule-workers-2.ssh_config"
FOLDER = "/etc/mlstack/dask"
PATIENCE = 240  # seconds until a worker is back; on a busy machine it takes minutes
CONNECT = """
import json, os, sys, time
from distributed import Client, Security
client = Client("tls://dask-scheduler:8786", timeout=60)
"""


@pytest.fixture(scope="module")
def worker() -> Host:
    """Return the host that is a worker and nothing else."""
    return testinfra.get_host("ssh://molecule-workers-2", ssh_config=str(SSH_CONFIG), sudo=True)


def in_trainer(host: Host, script: str, volume: str = f"{FOLDER}:/etc/dask:ro") -> CommandResult:
    """Run Python on the platform as a training runs there, by default with the certificate."""
    image = host.check_output("docker inspect --format '{{.Config.Image}}' dask-scheduler")
    command = "docker run --rm --network mlstack --volume %s %s python3 -c %s"
    return host.run(command, volume, image, script)


def ask(host: Host, script: str) -> dict[str, Any]:
    """Return what a client of the scheduler prints as JSON."""
    done = in_trainer(host, CONNECT + script)
    assert done.rc == 0, done.stderr
    return json.loads(done.stdout)


def address(host: Host) -> str:
    return str(host.check_output("hostname --ip-address | cut --delimiter=' ' --fields=1"))


def executed(host: Host) -> Counter[str]:
    """Count the tasks that the hosts have worked on, by the host's address."""
    counts = ask(host, "print(json.dumps(client.run(lambda dask_worker: dask_worker.state.executed_count)))")
    total: Counter[str] = Counter()
    for place, count in counts.items():
        total[re.split("[/:]+", place)[1]] += count
    return total


def processes(host: Host) -> dict[str, str]:
    """Return the workers on a host, and what each was called at its start."""
    names = ask(host, "print(json.dumps(client.run(lambda dask_worker: dask_worker.id)))")
    return {place: name for place, name in names.items() if f"{address(host)}:" in place}


def now(host: Host) -> int:
    """Return the host's time as MLflow notes it."""
    return int(host.check_output("date +%s%3N"))


def runs(host: Host, problem: str, since: int) -> dict[str, dict[str, dict[str, float]]]:
    """Return the metrics that say how good a model is, by training and model; each must be there once."""
    url = "http://127.0.0.1:5000/api/2.0/mlflow"

    def get(path: str, *options: str) -> dict[str, Any]:
        return dict(json.loads(host.check_output(shlex.join(["curl", "-sf", *options, f"{url}/{path}"]))))

    experiment = get(f"experiments/get-by-name?experiment_name={problem}")["experiment"]["experiment_id"]
    wanted = {
        "experiment_ids": [experiment],
        "max_results": 1000,
        "filter": f"attributes.start_time >= {since}",
    }
    found: dict[str, dict[str, dict[str, float]]] = {}
    for run in get("runs/search", "--json", json.dumps(wanted))["runs"]:
        tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
        assert run["info"]["status"] == "FINISHED", tags
        if "mlstack.model" in tags:
            models = found.setdefault(tags["mlstack.training"], {})
            assert tags["mlstack.model"] not in models
            models[tags["mlstack.model"]] = {
                metric["key"]: metric["value"]
                for metric in run["data"]["metrics"]
                if not re.search("seconds|_us_|memory|mib", metric["key"])
            }
    return found


@pytest.mark.restart
def test_each_processor_of_both_hosts_is_a_worker(host: Host, worker: Host) -> None:
    wanted = {address(one): int(one.check_output("nproc")) for one in (host, worker)}
    script = f"""
deadline = time.monotonic() + {PATIENCE}
while len(client.nthreads()) < {sum(wanted.values())} and time.monotonic() < deadline: time.sleep(0.5)
print(json.dumps(client.nthreads()))
"""
    threads = ask(host, script)
    assert Counter(re.split("[/:]+", place)[1] for place in threads) == wanted
    assert set(threads.values()) == {1}


def test_worker_that_has_lost_the_scheduler_begins_anew(host: Host, worker: Host) -> None:
    """Dask would leave the host with one process less, for ever."""
    before = worker.check_output("docker inspect --format '{{.Id}}' dask-worker")
    place = f"tls://{address(worker)}:8790"
    done = in_trainer(
        host,
        f"{CONNECT}client.run(lambda dask_worker: dask_worker.batched_stream.abort(), workers=['{place}'])",
    )
    deadline = time.monotonic() + PATIENCE
    while worker.run("docker inspect --format '{{.Id}}' dask-worker").stdout.strip() in ("", before):
        journal = worker.check_output("journalctl -u dask-worker -n 50")
        assert time.monotonic() < deadline, f"{done.stderr}\n{journal}"
        time.sleep(0.5)
    test_each_processor_of_both_hosts_is_a_worker(host, worker)


def test_worker_has_one_native_thread_and_its_imports_behind_it(host: Host) -> None:
    names = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"]
    look = f"lambda: [os.environ[name] for name in {names}] + ['sklearn' in sys.modules]"
    found = ask(host, f"print(json.dumps(client.run({look})))")
    assert set(map(tuple, found.values())) == {("1", "1", "1", True)}


@pytest.mark.parametrize(
    ("security", "reason"),
    [
        ('Client("tcp://dask-scheduler:8786", timeout={seconds})', "Connection reset|closed"),
        (
            'Client("tls://dask-scheduler:8786", timeout={seconds}, security=Security.temporary())',
            "certificate verify failed",
        ),
    ],
    ids=["without TLS", "with a certificate of one's own"],
)
def test_client_without_the_certificate_is_refused(host: Host, security: str, reason: str) -> None:
    # Each attempt may take a fifth of the time: on a busy machine, too little to be refused.
    for seconds in (5, 30):
        script = f"from distributed import Client, Security; {security.format(seconds=seconds)}; print('in')"
        done = in_trainer(host, script, "/etc/dask")
        assert done.rc != 0
        assert "in" not in done.stdout.split()
        if re.search(reason, done.stderr):
            return
    pytest.fail(done.stderr)


def test_worker_refuses_who_has_no_certificate(host: Host, worker: Host) -> None:
    refused = host.run(
        "curl --silent --show-error --insecure --max-time 10 %s", f"https://{address(worker)}:8790/"
    )
    assert refused.rc != 0
    # It depends on who is quicker whether the refusal can still be read.
    assert re.search("certificate required|reset by peer", refused.stderr), refused.stderr


def test_health_pages_are_for_the_host_alone(host: Host, worker: Host) -> None:
    assert host.run("curl --silent --fail http://127.0.0.1:8787/health").rc == 0
    assert worker.run("curl --silent --fail http://127.0.0.1:8788/health").rc == 0
    for place in (f"{address(host)}:8787", f"{address(worker)}:8788"):
        assert host.run("curl --silent --max-time 5 %s", f"http://{place}/health").rc == 7


def test_key_is_for_root_and_the_containers_alone(host: Host, worker: Host) -> None:
    keys = [one.file(f"{FOLDER}/tls.pem") for one in (host, worker)]
    assert {(key.uid, key.mode) for key in keys} == {(10001, 0o400)}
    assert len({key.sha256sum for key in keys}) == 1
    for one in (host, worker):
        assert "PRIVATE KEY" not in one.check_output("journalctl --output=cat")


def test_worker_may_not_ask_the_metadata_service(worker: Host) -> None:
    script = "import socket; socket.create_connection(('169.254.169.254', 80), timeout=5)"
    refused = worker.run("docker exec dask-worker python3 -c %s", script)
    assert "Connection refused" in refused.stderr


def test_second_host_has_nothing_but_the_worker(worker: Host) -> None:
    assert worker.check_output("docker ps --format '{{.Names}}'").split() == ["dask-worker"]


def test_workers_are_checked_and_shown(host: Host, worker: Host, playbook: Playbook) -> None:
    processes = {"my-server": host.check_output("nproc"), "my-worker": worker.check_output("nproc")}
    checks = playbook("playbooks/verify.yml")
    assert checks.returncode == 0, checks.stdout
    counted = ", ".join(f"{name} {count}" for name, count in processes.items())
    assert f"passed   Each worker's processes are connected to the scheduler ({counted})" in checks.stdout
    screen = playbook("playbooks/status.yml").stdout
    assert re.search(r"^ +dask-scheduler +active .* MiB +[0-9a-f]{12}, as here$", screen, re.MULTILINE)
    for name, count in processes.items():
        row = rf"^ +{name} +active +\S+ \S+ +{count} +\d+ of \d+ MiB +[0-9a-f]{{12}}, as here$"
        assert re.search(row, screen, re.MULTILINE)


def test_worker_that_does_not_run_is_told(worker: Host, playbook: Playbook) -> None:
    worker.check_output("systemctl stop dask-worker")
    try:
        screen = playbook("playbooks/status.yml").stdout
    finally:
        worker.check_output("systemctl start dask-worker")
    assert re.search(r"^ +my-worker +inactive +\S+ \S+ +0 +- ", screen, re.MULTILINE)
    assert "the worker on my-worker is inactive" in screen


def test_training_on_workers_has_the_numbers_of_a_local_one(
    host: Host, worker: Host, playbook: Playbook, job: Callable[[str], Any]
) -> None:
    since, before = now(host), executed(host)
    shared = playbook("train.yml", "-e", "model=ridge,random_forest,svr", "-e", "problem=diabetes")
    assert shared.returncode == 0, shared.stdout
    done = executed(host) - before
    assert set(done) == {address(host), address(worker)}
    alone = job("trainer@alone")
    alone.start("--problem diabetes --model ridge,random_forest,svr --backend local")
    assert alone.ends(300) == "success", alone.journal
    assert executed(host) - before == done
    ours, theirs = runs(host, "diabetes", since).values()
    assert set(ours) == {"dummy", "ridge", "random_forest", "svr"}
    assert ours.keys() == theirs.keys()
    for model, metrics in theirs.items():
        assert ours[model] == pytest.approx(metrics), model


def test_training_survives_the_death_of_a_worker(host: Host, worker: Host, job: Callable[[str], Any]) -> None:
    wanted = {"random_forest", "extra_trees", "svc", "logistic_regression"}
    script = f"""
def busy():
    return [tasks for place, tasks in client.processing().items() if tasks and "{address(worker)}:" in place]
deadline = time.monotonic() + 120
while not busy() and time.monotonic() < deadline: time.sleep(0.1)
print(json.dumps({{"busy": len(busy())}}))
"""
    since, others = now(host), processes(host)
    training = job("trainer@killed")
    training.start(f"--problem digits --model {','.join(sorted(wanted))}")
    assert ask(host, script)["busy"]
    worker.check_output("docker kill dask-worker")
    assert training.shown("ActiveState") == "activating"
    assert training.ends(300) == "success", training.journal
    (models,) = runs(host, "digits", since).values()
    assert set(models) == wanted | {"dummy"}
    assert processes(host) == others
    test_each_processor_of_both_hosts_is_a_worker(host, worker)
