"""The table of services: what follows from it, and which places a further service touches."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from .project import ROOT, load_module, platform, play, read_yaml, render

SECTION = re.search(
    r"^## How to add a service\n(.*?)^## ",
    (ROOT / "docs/architecture.md").read_text(),
    re.DOTALL | re.MULTILINE,
)
PLATFORM = ["mlflow", "streamlit", "scoring"]
WORKERS = {"mlstack": ["my-server"], "workers": ["my-server", "other"]}

# A service that is made up, as the document says: files to write, and lines to add to files that are there.
FILES = {
    "roles/echo/defaults/main.yml": "echo_port: 8600\necho_memory: 64m\necho_words: 3\n",
    "roles/echo/meta/argument_specs.yml": """\
argument_specs:
  main:
    short_description: A service that repeats what it hears
    options:
      echo_port: {description: Port on the host., type: int, default: 8600}
      echo_memory: {description: Memory limit., type: str, default: 64m}
      echo_words: {description: How many words it says., type: int, default: 3}
""",
    "roles/echo/templates/preflight.j2": """\
{% if echo_words | int > 5 %}
echo_words = {{ echo_words }}: expected 0 to 5
{% endif %}
""",
    "roles/echo/tasks/main.yml": """\
- name: Run the service
  ansible.builtin.include_role:
    name: service
  vars:
    service_name: echo
    service_image: "{{ image_references['mlstack/trainer'] }}"
    service_ports: ["{{ echo_port }}:8600"]
    service_memory: "{{ echo_memory }}"
""",
    "roles/echo/README.md": "# echo\n",
    "docs/echo.md": "# Echo\n",
}
LINES = {
    "group_vars/all/main.yml": "\necho_port: 8600\necho_memory: 64m\n",
    "group_vars/all/wiring.yml": """
echo_public_port: "{{ echo_port }}"
echo_public_url: http://{{ mlstack_public_host }}:{{ echo_public_port }}
""",
}
ENTRY = """\
  - name: echo
    role: echo
    image: mlstack/trainer
    memory: "{{ echo_memory }}"
    ports: {echo_port: "{{ echo_port }}"}
    public_ports: {echo_public_port: "{{ echo_public_port }}"}
    label: Echo
    url: "{{ echo_public_url }}"
    reaches: [mlflow]

"""
BEFORE = "  # The next two are deployed by playbooks/workers.yml"
TABLE = "group_vars/all/services.yml"

# What follows from the table, as the roles see it on the host of the platform.
FOLLOWS = [
    "aws_ui_ports",
    "aws_memory_needed_mib",
    "mlstack_images",
    "preflight_services",
    "verify_containers",
    "verify_addresses",
    "status_units",
    "status_addresses",
    "sandbox_host_ports",
    "__sandbox_ports",
    "__preflight_units",
    "taken",
]
LOOK = [
    {
        "hosts": "mlstack",
        "connection": "local",
        "gather_facts": False,
        # Imported for what they define.
        "roles": [{"role": "sandbox", "when": False}, {"role": "preflight", "when": False}],
        "vars": {
            "__sandbox_taken": {"stdout_lines": ["8600", "9502"]},
            "taken": "{{ lookup('ansible.builtin.template', '../roles/sandbox/templates/taken_ports.j2') }}",
        },
        "tasks": [
            {
                "ansible.builtin.copy": {
                    "dest": "{{ found }}",
                    "mode": "0600",
                    "content": "{{ {" + ", ".join(f"'{name}': {name}" for name in FOLLOWS) + "} | to_json }}",
                },
            },
        ],
    }
]


def add_echo(root: Path) -> None:
    """Do by hand what the document tells people to do."""
    for path, text in FILES.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(f"---\n{text}" if path.endswith(".yml") else text)
    for path, text in LINES.items():
        (root / path).write_text((root / path).read_text() + text)
    table = (root / TABLE).read_text()
    assert BEFORE in table
    (root / TABLE).write_text(table.replace(BEFORE, ENTRY + BEFORE))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the Ansible code, with the service."""
    root = tmp_path_factory.mktemp("project")
    for name in ("group_vars", "inventory", "playbooks", "plugins", "roles", "requirements", "docs"):
        shutil.copytree(ROOT / name, root / name, symlinks=True)
    shutil.copy(ROOT / "ansible.cfg", root)
    add_echo(root)
    (root / "playbooks/look.yml").write_text(json.dumps(LOOK))
    return root


@pytest.fixture(scope="module")
def follows(project: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What Ansible makes of the table in the sandbox."""
    home = tmp_path_factory.mktemp("home")
    values = ("-e", f"found={home}/found.json", "-e", "sandbox_scoring_port=9502")
    run = play("playbooks/look.yml", "-i", "inventory/sandbox", *values, home=home, project=project)
    assert run.returncode == 0, run.output
    return dict(json.loads((home / "found.json").read_text()))


def test_firewall_memory_and_sandbox_follow(follows: dict[str, Any]) -> None:
    assert follows["aws_ui_ports"] == [5000, 8501, 8502, 8600]
    assert int(follows["aws_memory_needed_mib"]) == 4096 + 64
    assert follows["sandbox_host_ports"] == [
        "127.0.0.1:2222:22",
        "127.0.0.1:5000:5000",
        "127.0.0.1:8501:8501",
        "127.0.0.1:9502:8502",
        "127.0.0.1:8600:8600",
    ]
    assert follows["__sandbox_ports"]["echo_public_port"] == 8600
    assert "echo_public_port = 8600: another program listens" in follows["taken"]
    assert 'make sandbox ARGS="-e sandbox_scoring_port=9512"' in follows["taken"]
    assert follows["mlstack_images"] == [
        "replication",
        "mlflow",
        "backup",
        "streamlit",
        "scoring",
        "trainer",
        "health",
    ]


def test_verify_status_and_summary_follow(follows: dict[str, Any]) -> None:
    assert follows["verify_containers"] == ["replication", *PLATFORM, "echo"]
    assert list(follows["verify_addresses"]) == [
        "MLflow",
        "Inference app",
        "REST service",
        "Echo",
        "SSH",
        "Logs",
    ]
    assert follows["status_addresses"]["Echo"] == "http://127.0.0.1:8600"
    logs = " ".join(follows["verify_addresses"]["Logs"].split())
    daemons = "-u replication -u mlflow -u streamlit -u scoring -u echo"
    assert logs == f"sudo journalctl {daemons} -u 'trainer@*'"
    assert list(follows["status_units"].items())[-2:] == [
        ("trainer", "mlstack/trainer"),
        ("echo", "mlstack/trainer"),
    ]


def test_ports_that_the_host_must_have_follow(follows: dict[str, Any]) -> None:
    assert follows["__preflight_units"]["echo"] == {"echo_port": 8600}
    assert follows["__preflight_units"]["trainer"] == {}
    assert "dask-scheduler" not in follows["__preflight_units"]


def test_each_daemon_is_checked_on_the_host(follows: dict[str, Any]) -> None:
    ports = dict.fromkeys(("mlflow_port", "streamlit_port", "scoring_port", "dask_http_port"), 1)
    settings = {"containers": follows["verify_containers"], "workers": {}} | ports
    titles = [title for title, *_ in load_module("roles/verify/files/verify.py").Checks(settings).all()]
    for name in ("replication", *PLATFORM, "echo"):
        assert f"{name}: Its unit is active and starts at boot." in titles
        assert f"{name}: Limits and read-only root are in force." in titles


@pytest.mark.parametrize(
    ("variables", "unwanted"),
    [
        ({"backup_to": "/mnt/backup", "replication_to": "/mnt/replica"}, []),
        ({}, ["replication", "backup"]),
        ({"backup_to": "/mnt/backup", "mlflow_backend": "postgresql"}, ["replication"]),
    ],
)
def test_what_a_deployment_no_longer_has_is_removed(variables: dict[str, str], unwanted: list[str]) -> None:
    """The scheduler and the workers are removed where they are deployed."""
    assert render("service_unwanted", platform(**variables)) == unwanted
    for playbook in ("configure", "move_to_postgresql"):
        text = (ROOT / f"playbooks/{playbook}.yml").read_text()
        assert text.rindex("tasks_from: remove") > text.rindex(
            "name: mlflow" if "move" in playbook else "loop:"
        )


@pytest.mark.parametrize(
    ("variables", "refused"),
    [
        (
            {"echo_port": 5000, "echo_memory": "1t", "echo_cpus": "two", "echo_words": 6},
            [
                "echo_port = 5000: expected a free port; mlflow_port has the same one",
                "echo_memory = 1t: expected a number followed by m or g",
                "echo_cpus = two: expected a number of processors",
                "echo_words = 6: expected 0 to 5",
            ],
        ),
        ({"echo_words": "many"}, ["'echo_words'", "many", "roles/echo/meta/argument_specs.yml"]),
        ({}, []),
    ],
    ids=["values", "types", "nothing"],
)
def test_preflight_follows(
    project: Path, tmp_path: Path, variables: dict[str, Any], refused: list[str]
) -> None:
    more = ("--extra-vars", json.dumps(variables))
    run = play("playbooks/preflight.yml", "-i", "inventory/server", *more, home=tmp_path, project=project)
    assert (run.returncode != 0) is bool(refused), run.output
    assert not [message for message in refused if message not in run.said], run.output


def test_document_names_each_place_that_was_touched() -> None:
    assert SECTION
    named = re.findall(r"^\d+\. `([^`]+)`", SECTION[1], re.MULTILINE)
    touched = {"roles/NAME/" if path.startswith("roles/") else path.replace("echo", "NAME") for path in FILES}
    assert touched | set(LINES) | {TABLE} == set(named)


# --- the platform's own entries -------------------------------------------------------------------


def test_each_container_of_the_host_is_verified() -> None:
    assert render("verify_containers", platform()) == PLATFORM
    names = [*PLATFORM, "dask-scheduler"]
    assert render("verify_containers", platform(groups=WORKERS)) == names
    both = platform(groups=WORKERS, group_names=["mlstack", "workers"])
    assert render("verify_containers", both) == [*names, "dask-worker"]


def test_of_the_jobs_the_largest_counts() -> None:
    on = platform(backup_to="/mnt/backups", backup_memory="64m")
    assert int(render("aws_memory_needed_mib", on)) == 3904
    assert int(render("aws_memory_needed_mib", on | {"backup_memory": "2g"})) == 3904 + 512


def test_units_of_a_worker_are_its_own() -> None:
    worker = platform(groups=WORKERS, group_names=["workers"], inventory_hostname="other")
    assert render("status_units", worker) == {"dask-worker": "mlstack/trainer"}
    assert render("verify_containers", worker) == ["dask-worker"]


def test_a_team_extends_the_table_in_its_settings() -> None:
    own = {"name": "reports", "role": "reports", "memory": "256m", "ports": {"reports_port": 8700}}
    variables = platform(mlstack_services=[own])
    assert render("verify_containers", variables) == [*PLATFORM, "reports"]
    assert int(render("aws_memory_needed_mib", variables)) == 3904 + 256
    # It has no public port, so the firewall stays closed.
    assert render("aws_ui_ports", variables) == [5000, 8501, 8502]
    assert render("preflight_services", variables)[-1]["hosts"] == "mlstack"


@pytest.mark.parametrize(
    ("entry", "refused"),
    [
        ({"name": "mlflow"}, "mlflow: expected unique names; more than one service has this one"),
        ({"reaches": ["mlfow"]}, "reports: reaches mlfow: expected one of replication, mlflow, backup"),
        ({"reaches": ["cloud"]}, "reports: reaches cloud: expected a fixed address"),
        (
            {"ports": {"a": 1, "b": 2}, "public_ports": {"c": 3}},
            "reports: expected as many public_ports as ports, or none; it has 2 ports and 1 public_ports",
        ),
        ({"memory": ""}, "reports_memory = : expected a number followed by m or g"),
    ],
)
def test_entry_that_cannot_be_is_refused(entry: dict[str, Any], refused: str) -> None:
    own = {"name": "reports", "role": "", "memory": "256m"} | entry
    variables = platform(mlstack_services=[own], folder=str(ROOT / "roles"))
    found = render("query('role_problems', 'preflight', folder=folder)", variables)
    assert [line for line in found if refused in line], found


def test_port_of_a_service_that_is_not_there_is_free() -> None:
    def clashes(**variables: Any) -> list[str]:
        seen = platform(mlflow_port=8786, dask_port=8786, folder=str(ROOT / "roles"), **variables)
        found = render("query('role_problems', 'preflight', folder=folder)", seen)
        return [line for line in found if "expected a free port" in line]

    assert clashes() == []
    assert clashes(groups=WORKERS) == ["dask_port = 8786: expected a free port; mlflow_port has the same one"]


def test_jobs_wait_for_mlflow_and_daemons_start_beside_it() -> None:
    reach = {
        entry["role"]
        for entry in read_yaml(ROOT / TABLE)["mlstack_platform_services"]
        if "mlflow" in str(entry.get("reaches")) and entry.get("job")
    }
    after = {
        path.parts[-3]
        for path in (ROOT / "roles").glob("*/tasks/*.yml")
        if "mlflow.service]" in path.read_text() and "service_after" in path.read_text()
    }
    assert reach == after
