"""What the roles write on a host: units that say what was meant, and the names that MLflow answers to."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from .project import ROOT, load_module, platform, read_yaml, render, role_variables, shared_variables

SCRIPT = ROOT / "roles/service/files/service.sh"
NASTY = ['50% of $HOME and ${HOME} %n "quoted" \\ back', "two  spaces", "", "it's", "a;b|c&d", "Zürich"]


def template(name: str, **variables: Any) -> str:
    """Render a template of the role `service`."""
    path = ROOT / "roles/service/templates" / name
    wanted = role_variables("service") | {"service_name": "web", "service_image": "mlstack/web:1"} | variables
    return str(render("lookup('ansible.builtin.template', path)", wanted | {"path": str(path)}))


def settings(unit: str, name: str) -> list[str]:
    """List the values of one setting of a unit, with its lines joined as systemd joins them."""
    lines = unit.replace("\\\n", " ").splitlines()
    return [line.partition("=")[2] for line in lines if line.startswith(f"{name}=")]


def words(command: str) -> list[str]:
    """Split a command line as systemd does: quotes, backslashes, %% and $$; a single % or $ fails."""
    split = [
        re.sub(r"\\u([0-9a-f]{4})", lambda code: chr(int(code[1], 16)), word) for word in shlex.split(command)
    ]
    for sign in "%$":
        assert not [run for run in re.findall(rf"[{sign}]+", command) if len(run) % 2], f"a single {sign}"
    return [word.replace("%%", "%").replace("$$", "$") for word in split]


def verified(unit: str, name: str, folder: Path) -> str:
    """Return what systemd has against a unit; nothing where there is no systemd to ask."""
    if not shutil.which("systemd-analyze"):
        return ""
    installed = role_variables("service")["__service_script"]
    (folder / name).write_text(unit.replace("/usr/bin/docker", "/bin/true").replace(installed, str(SCRIPT)))
    (folder / "docker.service").write_text("[Service]\nExecStart=/bin/true\n")
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(folder / name)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr.strip()


def test_arguments_reach_the_container_as_they_are(tmp_path: Path) -> None:
    unit = template(
        "unit.j2",
        service_command=["serve", *NASTY],
        service_volumes=["/srv/a b:/data:ro"],
        service_options=["--label=note=100% $sure"],
    )
    (command,) = settings(unit, "ExecStart")
    found = words(command)
    assert found[found.index("mlstack/web:1") + 1 :] == ["serve", *NASTY]
    assert found[found.index("--volume") + 1] == "/srv/a b:/data:ro"
    assert "--label=note=100% $sure" in found
    assert verified(unit, "web.service", tmp_path) == ""


@pytest.mark.parametrize("kind", ["daemon", "job"])
def test_container_is_closed_and_limited(kind: str, tmp_path: Path) -> None:
    unit = template(
        "unit.j2",
        service_type=kind,
        service_memory="64m",
        service_cpus="0.5",
        service_pids=7,
        service_address="10.0.0.9",
        service_ports=["127.0.0.1:80:8000"],
        service_health_url="http://127.0.0.1:80/" if kind == "daemon" else "",
    )
    (command,) = settings(unit, "ExecStart")
    for part in (
        "--read-only --cap-drop ALL --security-opt no-new-privileges --user 10001:10001",
        "--memory 64m --memory-swap 64m --cpus 0.5",
        "--pids-limit 7",
        "--network mlstack",
        "--ip 10.0.0.9",
        "--publish 127.0.0.1:80:8000",
        "--tmpfs /tmp:rw,nosuid,nodev,size=64m",
        "--env-file /etc/default/web",
        "--pull never",
    ):
        assert part in " ".join(command.split())
    assert verified(unit, "web.service" if kind == "daemon" else "web@.service", tmp_path) == ""


def test_service_waits_for_the_disks_of_its_folders(tmp_path: Path) -> None:
    unit = template(
        "unit.j2",
        service_volumes=["/srv/a b/50%:/data:ro", "named:/cache", "/data/web:/web"],
        service_mount_points=["/srv", "/data/web", "/elsewhere", "/data/w"],
    )
    (folders,) = settings(unit, "RequiresMountsFor")
    assert words(folders) == ["/srv/a b/50%", "/data/web"]
    checks = [words(command) for command in settings(unit, "ExecStartPre") if "mountpoint" in command]
    assert checks == [["/usr/bin/mountpoint", "/srv"], ["/usr/bin/mountpoint", "/data/web"]]
    assert verified(unit, "web.service", tmp_path) == ""


def test_service_without_folders_waits_for_none() -> None:
    unit = template("unit.j2", service_volumes=["named:/cache"], service_mount_points=["/srv"])
    assert "RequiresMountsFor" not in unit
    assert "mountpoint" not in unit


def test_daemon_starts_at_boot_and_waits_for_an_answer() -> None:
    unit = template(
        "unit.j2", service_health_url="http://127.0.0.1:80/health", service_after=["mlflow.service"]
    )
    assert settings(unit, "Restart") == ["always"]
    assert settings(unit, "WantedBy") == ["multi-user.target"]
    assert "mlflow.service" in settings(unit, "After")[0].split()
    (gate,) = settings(unit, "ExecStartPost")
    assert words(gate)[1:] == ["answers", "web", "http://127.0.0.1:80/health", "120"]
    assert int(settings(unit, "TimeoutStartSec")[0]) > 120


def test_job_runs_once_with_the_arguments_of_its_instance() -> None:
    unit = template("unit.j2", service_type="job", service_command=["train"])
    assert settings(unit, "Type") == ["oneshot"]
    assert settings(unit, "EnvironmentFile") == ["/etc/default/web@%i"]
    assert settings(unit, "ExecStart")[0].endswith('mlstack/web:1 "train" $JOB_ARGUMENTS')
    assert settings(unit, "TimeoutStartSec") == ["infinity"]
    assert not settings(unit, "Restart")
    assert "[Install]" not in unit


def test_jobs_container_runs_under_the_lock_and_is_named_after_its_instance(tmp_path: Path) -> None:
    unit = template(
        "unit.j2", service_type="job", service_options=["--env=JOB=50%/web@%i"], service_time_limit=90
    )
    (command,) = settings(unit, "ExecStart")
    found = words(command.replace("%i", "INSTANCE").replace("$JOB_ARGUMENTS", ""))
    assert found[:3] == ["/usr/bin/flock", "--no-fork", "/run/web.lock"]
    assert found[4:7] == ["run", "web", "INSTANCE"]
    assert found[found.index("--name") + 1] == "web-INSTANCE"
    assert "--env=JOB=50%/web@INSTANCE" in found
    assert "--rm" not in found
    assert settings(unit, "TimeoutStartSec") == ["90"]
    assert verified(unit, "web@.service", tmp_path) == ""


def no_docker(folder: Path) -> Path:
    """Make a folder with a Docker client that knows of no container."""
    client = folder / "docker"
    client.write_text("#!/bin/sh\nexit 1\n")
    client.chmod(0o755)
    return folder


def test_job_that_failed_is_followed_up_in_a_container_like_its_own(tmp_path: Path) -> None:
    job = {"service_type": "job", "service_address": "10.0.0.9", "service_volumes": ["/srv:/srv"]}
    unit = template("unit.j2", **job, service_after_failure=["tidy", *NASTY], service_time_limit=90)
    (command,) = settings(unit, "ExecStopPost")
    found = words(command.replace("%i", "INSTANCE"))
    assert found[1:8] == ["ended", "web", "INSTANCE", "512m", "90", "/usr/bin/docker", "run"]
    for result, status, why in [
        ("timeout", "143", "over its time limit of 90 s"),
        ("exit-code", "137", "killed from outside"),
        ("signal", "KILL", "killed from outside"),
        ("exit-code", "3", "exit-code, exit status 3"),
        ("signal", "", "signal"),
        ("success", "0", ""),
    ]:
        told = {
            "PATH": f"{no_docker(tmp_path)}:/usr/bin:/bin",
            "SERVICE_RESULT": result,
            "EXIT_STATUS": status,
        }
        ended = [SCRIPT, *found[1:6], "echo", "told:"]
        said = subprocess.run(ended, env=told, capture_output=True, text=True, check=True).stdout
        assert said == (f"web@INSTANCE failed: {why}\ntold: {why}\n" if why else "")
    assert found[found.index("mlstack/web:1") + 1 :] == ["tidy", *NASTY]
    assert "--rm" in found
    assert found[found.index("--volume") + 1] == "/srv:/srv"
    # The address is the next job's by now.
    assert "--ip" not in found
    assert verified(unit, "web@.service", tmp_path) == ""
    assert "docker run" not in settings(template("unit.j2", **job), "ExecStopPost")[0]


def test_job_starts_only_with_room_on_its_disks(tmp_path: Path) -> None:
    volumes = [f"{tmp_path}:/spool", "named:/cache"]
    for percent, starts in ((100, True), (1, False)):
        unit = template("unit.j2", service_type="job", service_volumes=volumes, service_full_percent=percent)
        (check,) = [words(line) for line in settings(unit, "ExecStartPre") if " room " in line]
        assert check[1:] == ["room", str(percent), "/", str(tmp_path)]
        done = subprocess.run([SCRIPT, *check[1:]], capture_output=True, text=True, check=False)
        assert (done.returncode == 0) is starts
        assert starts or done.stdout.startswith("Expected the disk of / to be less than 1 % full; got ")
    assert verified(unit, "web@.service", tmp_path) == ""
    assert " room " not in template("unit.j2", service_type="job", service_volumes=volumes)


def test_start_fails_unless_the_service_answers_in_time(tmp_path: Path) -> None:
    """Also when something answers, but without a container it is not the service."""
    silent = "web did not answer at http://127.0.0.1:80/ within 1 s\n"
    answers = [SCRIPT, "answers", "web", "http://127.0.0.1:80/", "1"]
    for status, docker, said in (
        (0, f"echo {os.getpid()}", ""),
        (7, "exit 1", silent),
        (0, "exit 1", silent),
    ):
        for name, script in (("curl", f"exit {status}"), ("docker", docker)):
            (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
            (tmp_path / name).chmod(0o755)
        path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
        done = subprocess.run(answers, env=path, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (int(said != ""), said)


def test_start_fails_at_once_when_the_container_has_ended(tmp_path: Path) -> None:
    """First its process runs, then another container could have it; and the client may end before."""
    for name, script in (
        ("curl", "exit 7"),
        ("docker", f'read -r pid <"{tmp_path}/pid"; echo 999999 >"{tmp_path}/pid"; echo "$pid"'),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    answers = [SCRIPT, "answers", "web", "http://127.0.0.1:80/", "60"]
    for pid, main in ((os.getpid(), os.getpid()), (999999, 999999)):
        (tmp_path / "pid").write_text(f"{pid}\n")
        path = {"PATH": f"{tmp_path}:/usr/bin:/bin", "MAINPID": str(main)}
        done = subprocess.run(answers, env=path, capture_output=True, text=True, check=False, timeout=10)
        assert (done.returncode, done.stdout) == (1, "web ended before it answered at http://127.0.0.1:80/\n")


def test_service_without_another_waits_for_it_and_stops_first(tmp_path: Path) -> None:
    unit = template("unit.j2", service_part_of=["replication.service"])
    assert settings(unit, "PartOf") == settings(unit, "Wants")[-1:] == ["replication.service"]
    assert settings(unit, "After")[-1] == "replication.service"
    assert "/usr/bin/systemctl is-active --quiet replication.service" in settings(unit, "ExecStartPre")
    assert verified(unit, "web.service", tmp_path) == ""


def test_timer_starts_an_instance_also_one_that_was_missed() -> None:
    timer = template("timer.j2", service_schedule="Sun 04:30", service_instance="drill")
    assert settings(timer, "Unit") == ["web@drill.service"]
    assert settings(timer, "OnCalendar") == ["Sun 04:30"]
    assert settings(timer, "Persistent") == ["true"]
    assert settings(timer, "WantedBy") == ["timers.target"]
    assert render("__service_timer_file", role_variables("service") | {"service_name": "web"}) == (
        "/etc/systemd/system/web-scheduled.timer"
    )


def test_what_needs_a_service_that_ended_for_good_is_stopped(tmp_path: Path) -> None:
    unit = template("unit.j2", service_final_exits=[2, 3])
    assert settings(unit, "RestartPreventExitStatus") == ["2 3"]
    (command,) = settings(unit, "ExecStopPost")
    assert words(command)[1:] == ["final", "web", "2", "3"]
    client = tmp_path / "systemctl"
    client.write_text(
        '#!/bin/sh\ncase "$1" in show) echo "mlflow.service app.service" ;; *) echo "$@" ;; esac\n'
    )
    client.chmod(0o755)
    for status, said in (("0", ""), ("KILL", ""), ("3", "stop --no-block mlflow.service app.service\n")):
        environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "EXIT_STATUS": status}
        done = subprocess.run(
            [SCRIPT, *words(command)[1:]], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.endswith(said)
        assert bool(done.stdout) == bool(said)


def test_what_a_unit_answers_is_watched(tmp_path: Path) -> None:
    watch = load_module("roles/service/files/watch.py")
    (tmp_path / "job@.service").write_text(template("unit.j2", service_type="job"))
    urls = ["http://127.0.0.1:80/health", "http://127.0.0.1:80/search?most=1&page=50%25"]
    (tmp_path / "web.service").write_text(template("unit.j2", service_watch_urls=urls))
    assert watch.watched(tmp_path) == {"web": urls}
    assert verified(template("unit.j2", service_watch_urls=urls), "web.service", tmp_path) == ""


def test_single_command_is_closed_and_limited_as_the_unit_is() -> None:
    service = {
        "service_command": ["check", *NASTY],
        "service_memory": "64m",
        "service_volumes": ["/srv/a b:/data:ro"],
        "service_secrets": {"TOKEN": "a-secret"},
        "service_address": "10.0.0.9",
        "service_ports": ["127.0.0.1:80:8000"],
    }
    (task,) = read_yaml(ROOT / "roles/service/tasks/once.yml")
    variables = (
        role_variables("service") | {"service_name": "web", "service_image": "mlstack/web:1"} | service
    )
    argv = render(task["ansible.builtin.command"]["argv"].strip()[2:-2], variables)
    command = settings(template("unit.j2", **service), "ExecStart")[0]
    limits = words(command)[words(command).index("--log-driver") : words(command).index("--env-file")]
    assert argv[:2] == ["docker", "run"]
    assert argv[argv.index("--log-driver") : argv.index("--env-file")] == limits
    assert argv[argv.index("--env-file") :] == ["--env-file", "/dev/stdin", "mlstack/web:1", "check", *NASTY]
    # The address and the ports are the running service's.
    assert not {"--ip", "--publish", "--name", "a-secret"} & set(argv)
    assert task["no_log"] is True


def test_environment_is_written_as_docker_reads_it() -> None:
    written = template("environment.j2", __service_values={"B": "50% $x \"q\" 'r' #", "A": 1})
    assert [line for line in written.splitlines() if not line.startswith("#")] == [
        "A=1",
        "B=50% $x \"q\" 'r' #",
    ]


def test_secrets_are_in_a_file_of_their_own() -> None:
    unit = template("unit.j2", service_secrets={"PGPASSWORD": "p%40$x"})
    (command,) = settings(unit, "ExecStart")
    assert "--env-file /etc/default/web --env-file /etc/default/web.secrets" in " ".join(
        command.replace("\\\n", " ").split()
    )
    assert "p%40" not in unit
    assert ".secrets" not in template("unit.j2")


def mlflow(names: list[str], port: object = 5000, public_port: object = 5000, **more: Any) -> dict[str, str]:
    variables = role_variables("mlflow") | {
        "mlflow_names": names,
        "mlflow_port": port,
        "mlflow_public_port": public_port,
        "mlflow_artifacts": "local",
    }
    return dict(render("__mlflow_environment", variables | more))


def test_mlflow_answers_to_its_names_with_and_without_its_ports() -> None:
    found = mlflow(["mlflow", "ml.example", "mlflow"], port="5000", public_port=8080)
    hosts = found["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    assert sorted(hosts) == sorted(
        f"{n}{p}" for n in ("mlflow", "ml.example") for p in ("", ":5000", ":8080")
    )
    origins = found["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"].split(",")
    assert sorted(origins) == sorted(f"{scheme}://{host}" for scheme in ("http", "https") for host in hosts)
    assert "*" not in "".join(hosts + origins)


def test_mlflow_names_one_port_once() -> None:
    assert mlflow(["a"], port=5000, public_port="5000")["MLFLOW_SERVER_ALLOWED_HOSTS"] == "a,a:5000"


@pytest.mark.parametrize(
    ("artifacts", "place"), [("local", "/data/artifacts"), ("s3://bucket/prefix", "s3://bucket/prefix")]
)
def test_mlflow_keeps_artifacts_where_it_is_told(artifacts: str, place: str) -> None:
    assert mlflow(["a"], mlflow_artifacts=artifacts)["MLFLOW_ARTIFACTS_DESTINATION"] == place


def test_mlflow_runs_lean_and_private() -> None:
    found = mlflow(["a"])
    assert found["MLFLOW_WORKERS"] == "1"
    assert found["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert found["MLFLOW_DISABLE_TELEMETRY"] == "true"


POSTGRESQL = {
    "mlflow_backend": "postgresql",
    "mlflow_database_host": "db.example",
    "mlflow_database_user": "me@server",
    "mlflow_database_password": "p%40/w:rd",
}


def test_mlflow_knows_postgresql_by_an_address_without_the_password() -> None:
    found = mlflow(["a"], **POSTGRESQL)
    uri = urlsplit(found["MLFLOW_BACKEND_STORE_URI"])
    assert (uri.scheme, uri.netloc, uri.path) == (
        "postgresql+psycopg2",
        "me%40server@db.example:5432",
        "/mlflow",
    )
    assert parse_qs(uri.query)["sslmode"] == ["require"]
    assert "sslrootcert" not in uri.query
    assert "p%40" not in str(found)
    trusting = mlflow(["a"], **POSTGRESQL, mlflow_database_ca_bundle="rds.pem")
    assert "sslrootcert=/data/database-ca.pem" in trusting["MLFLOW_BACKEND_STORE_URI"]


@pytest.mark.parametrize(("variables", "expected"), [({}, {}), (POSTGRESQL, {"PGPASSWORD": "p%40/w:rd"})])
def test_mlflow_has_a_secret_on_postgresql_alone(variables: dict[str, Any], expected: dict[str, str]) -> None:
    assert render("__mlflow_secrets", role_variables("mlflow") | variables) == expected


@pytest.mark.parametrize(
    ("noted", "switch"),
    [("", True), ("sqlite 3.17.2", True), ("postgresql://db.example:5432/mlflow 2.0", False)],
)
def test_mlflow_notices_another_database(noted: str, switch: bool) -> None:
    variables = role_variables("mlflow") | POSTGRESQL | {"__mlflow_ran_on": noted}
    assert render("__mlflow_is_switch", variables) is switch


def test_mlflow_version_is_read_from_its_requirements() -> None:
    version = render("__mlflow_version", role_variables("mlflow"))
    assert f"mlflow=={version}\n" in (ROOT / "requirements/mlflow.in").read_text()


@pytest.mark.skipif(
    subprocess.run(
        ["unshare", "--map-root-user", "--net", "iptables", "--list"], capture_output=True, check=False
    ).returncode,
    reason="this machine gives out no network namespace with iptables",
)
def test_metadata_rules_refuse_all_but_the_clients(tmp_path: Path) -> None:
    """They stay the same when they are applied again, and others are left alone."""
    path = ROOT / "roles/docker/templates/metadata.sh.j2"
    script = tmp_path / "metadata.sh"
    again = []
    for clients in (["10.9.8.9"], ["10.9.8.7", "10.9.8.8"]):
        variables = {"docker_metadata_clients": clients, "path": str(path), "ansible_managed": "Ours."}
        script.write_text(str(render("lookup('ansible.builtin.template', path)", variables)))
        script.chmod(0o755)
        again += [shutil.copy(script, tmp_path / "-".join(clients))] * 2
    chain = "iptables --new DOCKER-USER; iptables --append DOCKER-USER --jump RETURN"
    commands = "; ".join([chain, *map(str, again), "iptables --list-rules DOCKER-USER"])
    shell = ["unshare", "--map-root-user", "--net", "sh", "-ec", commands]
    done = subprocess.run(shell, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    to = "-d 169.254.169.254/32 -j"
    assert done.stdout.splitlines() == [
        "-N DOCKER-USER",
        f"-A DOCKER-USER -s 10.9.8.8/32 {to} RETURN",
        f"-A DOCKER-USER -s 10.9.8.7/32 {to} RETURN",
        f"-A DOCKER-USER {to} REJECT --reject-with icmp-port-unreachable",
        "-A DOCKER-USER -j RETURN",
    ]


@pytest.mark.parametrize(
    ("cloud", "reads_s3", "clients"),
    [
        ("aws", False, ["10.9.8.12", "10.9.8.10", "10.9.8.13", "10.9.8.15"]),
        ("aws", True, ["10.9.8.12", "10.9.8.10", "10.9.8.13", "10.9.8.15", "10.9.8.11"]),
        ("none", True, []),
    ],
)
def test_metadata_service_is_open_to_mlflow_its_copies_and_a_job_that_reads_s3(
    cloud: str, reads_s3: bool, clients: list[str]
) -> None:
    variables = {"docker_network_subnet": "10.9.8.0/24", "mlstack_cloud": cloud, "trainer_reads_s3": reads_s3}
    assert render("docker_metadata_clients", platform(**variables)) == clients


def test_mlflow_has_the_first_address_that_is_left_to_us_on_the_network() -> None:
    variables = shared_variables() | {"docker_network_subnet": "10.9.8.0/24"}
    assert render("mlflow_address", variables) == "10.9.8.10"
