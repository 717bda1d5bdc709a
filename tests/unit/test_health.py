"""What the role makes of its hooks: settings without secrets, and secrets for the container alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .project import ROOT, platform, render, role_variables

HOOKS = [
    {"name": "team", "to": "https://example.org/s3cret", "kinds": ["disk"], "title": "$summary"},
    {"name": "pager", "to": "command: page --from-stdin"},
    {"name": "oncall", "to": "arn:aws:sns:eu-west-1:123456789012:alerts"},
]


def variables(**more: Any) -> dict[str, Any]:
    """What the role's tasks see."""
    settings = {"verify_settings": {}, "status_settings": {}, "path": str(ROOT / "roles/health/templates")}
    return role_variables("health") | platform(health_hooks=HOOKS, **more) | settings


def test_where_hooks_lead_only_the_container_is_told() -> None:
    settings = render("__health_settings | to_nice_json", variables())
    assert "s3cret" not in settings
    told = json.loads(settings)
    assert [hook["name"] for hook in told["hooks"]] == ["team", "pager", "oncall"]
    assert (told["hooks"][0]["kinds"], told["hooks"][0]["title"]) == (["disk"], "$summary")
    assert (told["hooks"][1]["at_least"], told["hooks"][1]["body"].count("\n")) == ("warning", 2)
    assert told["commands"] == {"pager": "command: page --from-stdin"}
    secrets = render("__health_secrets", variables())
    assert json.loads(secrets["HOOKS"]) == {hook["name"]: hook["to"] for hook in (HOOKS[0], HOOKS[2])}


def test_a_hook_that_is_fine_is_not_refused() -> None:
    assert (
        render("query('role_problems', 'health', folder=folder)", variables(folder=str(ROOT / "roles"))) == []
    )


def test_hooks_that_nobody_would_tell_are_refused() -> None:
    seen = variables(folder=str(ROOT / "roles"), health_schedule="")
    (problem,) = render("query('role_problems', 'health', folder=folder)", seen)
    assert problem.startswith("health_schedule is empty: expected a time such as *:0/5")


def test_the_host_may_publish_to_the_topics_of_hooks() -> None:
    seen = variables()
    assert render("aws_topics", seen) == [HOOKS[2]["to"]]
    (entry,) = (one for one in render("mlstack_services_here", seen) if one["name"] == "health")
    assert (entry["reaches"], entry["address"]) == (["cloud"], "10.213.64.14")
    assert render("health_topics", variables() | {"health_hooks": HOOKS[:2]}) == []


@pytest.mark.parametrize(
    ("more", "timers"),
    [
        ({}, ["mlflow-usage-scheduled"]),
        ({"trainer_schedule": "Mon 02:30"}, ["trainer", "mlflow-usage-scheduled"]),
        (
            {"backup_to": "/mnt/b", "backup_drill_schedule": "", "mlflow_usage_schedule": ""},
            ["backup-set"],
        ),
    ],
)
def test_timers_that_there_are_are_looked_at(more: dict[str, Any], timers: list[str]) -> None:
    assert render("health_timers", variables(**more)) == timers


def test_what_it_finds_is_read_where_it_is_left_and_nowhere_if_it_is_off() -> None:
    readers = "[streamlit_health_dir, status_health_dir, host_metrics_health_file]"
    folder = "/var/lib/mlstack-health"
    assert render(readers, variables()) == [folder, folder, f"{folder}/state.json"]
    assert render(readers, variables(health_schedule="")) == ["", "", ""]


def test_pages_that_are_encrypted_are_looked_at() -> None:
    urls = {"mlflow_public_url": "https://ml.example:8443/a", "streamlit_public_url": "https://app.example"}
    assert render("health_certificates", variables(**urls)) == ["ml.example:8443", "app.example:443"]


def test_it_looks_also_when_the_data_volume_is_gone() -> None:
    seen = variables(data_volume_device="/dev/sdb")
    settings = json.loads(render("__health_settings | to_json", seen))
    assert settings["mount_points"] == ["/var/lib/mlstack"]
    assert not settings["folder"].startswith("/var/lib/mlstack/")
    unit = render("lookup('ansible.builtin.template', path ~ '/mlstack-health.service.j2')", seen)
    assert "RequiresMountsFor" not in unit
    assert "ExecStartPre" not in unit
    timer = render("lookup('ansible.builtin.template', path ~ '/mlstack-health.timer.j2')", seen)
    assert "OnCalendar=*:0/5\n" in timer


def test_check_mode_sends_no_test() -> None:
    seen = variables(health_test=True) | {"ansible_check_mode": True, "__health_test": {"skipped": True}}
    report = render("lookup('ansible.builtin.template', path ~ '/report.j2')", seen)
    assert report == "No message is sent in check mode.\n"


def test_the_report_shows_the_worst_first_and_what_to_type() -> None:
    checks = [
        {
            "key": "disk:/",
            "title": "disk of /",
            "state": "failed",
            "text": "96 %\nfull",
            "since": 0,
            "do": "du /",
        },
        {"key": "backup", "title": "backup", "state": "ok", "text": "fine", "since": 0, "do": ""},
    ]
    told = {"time": 0, "key": "disk:/", "title": "disk of /", "from": "ok", "to": "failed", "text": ""}
    state = json.dumps({"time": 0, "checks": checks, "events": [told]})
    seen = variables() | {"__health_state": {"content": render("text | b64encode", {"text": state})}}
    report = render("lookup('ansible.builtin.template', path ~ '/report.j2')", seen)
    assert report == (
        "failed   disk of /: 96 % full\n           du /\nok       backup: fine\n"
        "Lately   1970-01-01 00:00 UTC  disk of /: ok -> failed\n"
    )
