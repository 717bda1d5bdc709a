"""A service: closed, restarted on change only, and put back when a change breaks it. And a job beside it."""

import json
from collections.abc import Callable
from subprocess import CompletedProcess
from typing import Any

import pytest
from testinfra.host import Host

Playbook = Callable[..., CompletedProcess[str]]
Jobs = Callable[[str], Any]
WEB = "molecule/service/web.yml"


@pytest.mark.restart
def test_container_is_closed(host: Host) -> None:
    found = json.loads(host.check_output("docker inspect web"))[0]
    limits = found["HostConfig"]
    assert limits["ReadonlyRootfs"]
    assert limits["CapDrop"] == ["ALL"]
    assert limits["Memory"] == limits["MemorySwap"] == 64 << 20
    assert limits["PidsLimit"] == 128
    assert found["Config"]["User"] == "10001:10001"
    assert "GREETING=hello world" in found["Config"]["Env"]


def test_secret_is_in_the_container_and_in_a_file_for_root_alone(host: Host, playbook: Playbook) -> None:
    container = json.loads(host.check_output("docker inspect web"))[0]
    assert {"GREETING=hello world", "TOKEN=a-secret"} <= set(container["Config"]["Env"])
    file = host.file("/etc/default/web.secrets")
    assert (file.user, file.mode) == ("root", 0o600)
    for shown in ("cat /etc/default/web", "systemctl cat web", "ps auxww", "journalctl"):
        assert "a-secret" not in host.check_output(shown)
    preview = playbook(WEB, "--check", "--diff", "-e", '{"service_secrets": {"TOKEN": "a-new-secret"}}')
    assert "changed=1" in preview.stdout
    assert "-secret" not in preview.stdout


def test_secret_that_is_no_longer_used_is_removed(host: Host, playbook: Playbook) -> None:
    without = playbook(WEB, "--diff", "-e", '{"service_secrets": {}}')
    assert without.returncode == 0
    assert "a-secret" not in without.stdout
    assert not host.file("/etc/default/web.secrets").exists
    assert playbook(WEB).returncode == 0
    assert host.file("/etc/default/web.secrets").exists


def test_nothing_is_restarted_without_a_change(host: Host, playbook: Playbook) -> None:
    before = host.check_output("docker inspect --format '{{.Id}}' web")
    assert playbook(WEB).returncode == 0
    assert host.check_output("docker inspect --format '{{.Id}}' web") == before


def test_broken_change_is_rolled_back_and_explained(host: Host, playbook: Playbook) -> None:
    unit = host.file("/etc/systemd/system/web.service").content_string
    broken = playbook(WEB, "-e", "web_port=eight-thousand")
    assert broken.returncode != 0
    assert "What ran before runs again" in broken.stdout
    assert "invalid int value: 'eight-thousand'" in broken.stdout
    assert host.file("/etc/systemd/system/web.service").content_string == unit
    assert host.service("web").is_running
    assert host.run("curl --silent --fail http://127.0.0.1:8000/").rc == 0
    assert host.run("ls /etc/systemd/system/web.service.*~").rc != 0


def test_run_that_was_interrupted_is_finished_by_the_next(host: Host, playbook: Playbook) -> None:
    unit = "/etc/systemd/system/web.service"
    copies = f"{unit}.123.2026-11-26@10:00:00~", f"{unit}.124.2026-11-26@10:01:00~"
    host.check_output(f"cp -p {unit} '{copies[0]}' && touch '{copies[1]}' && sed -i s/64m/65m/ {unit}")
    finished = playbook(WEB, "-e", "service_memory=65m")
    assert finished.returncode == 0
    assert host.check_output("docker inspect --format '{{.HostConfig.Memory}}' web") == str(65 << 20)
    assert not [copy for copy in copies if host.file(copy).exists]
    assert "changed=0" in playbook(WEB, "-e", "service_memory=65m").stdout
    assert playbook(WEB).returncode == 0


def test_container_that_the_engine_lost_is_replaced(host: Host) -> None:
    """Containerd is killed, and then what runs in the container: the engine goes on calling it up."""
    process = host.check_output("docker inspect --format '{{.State.Pid}}' web")
    host.check_output("pkill -9 -x containerd; kill -9 %s", process)
    asking = "until curl --silent --fail --output /dev/null http://127.0.0.1:8000/; do sleep 0.2; done"
    assert host.run(f"timeout 15 sh -c 'sleep 1; {asking}'").rc == 0
    assert host.service("web").is_running
    assert host.check_output("docker inspect --format '{{.State.Pid}}' web") != process


def test_single_command_is_closed_and_limited_and_leaves_nothing(host: Host, playbook: Playbook) -> None:
    since = host.check_output("date +%s")
    once = playbook("molecule/service/once.yml", "-vvv")
    assert once.returncode == 0
    # A read-only root, the containers' user, its environment; then killed for the memory that it takes.
    assert "ended with 137: EROFS 10001 hello world 8" in once.stdout
    assert "changed=0" in once.stdout
    assert not host.check_output("docker ps --all --quiet --filter status=exited")
    for shown in (once.stdout, host.check_output("journalctl --since=@%s", since)):
        assert "a-secret" not in shown


def test_job_over_its_memory_limit_ends_and_leaves_the_others_alone(host: Host, job: Jobs) -> None:
    before = host.check_output("systemctl show --property=MainPID web")
    asking = host.run(
        "nohup sh -c 'rm -f /tmp/enough; until test -e /tmp/enough; do "
        'curl --silent --output /dev/null --write-out "%{http_code} " --max-time 5 http://127.0.0.1:8000/; '
        "done' >/tmp/answers 2>&1 &"
    )
    assert asking.rc == 0
    hog = job("job@hog")
    hog.start("allocate")
    assert hog.ends() == "exit-code"
    host.check_output("touch /tmp/enough; sleep 1")
    answers = host.check_output("cat /tmp/answers").split()
    assert set(answers) == {"200"}
    assert len(answers) > 20
    assert "job@hog failed: over its memory limit of 128m" in hog.journal
    assert host.check_output("systemctl show --property=MainPID web") == before


def test_second_job_waits_for_the_first_and_says_so(job: Jobs) -> None:
    first, second = job("job@first"), job("job@second")
    first.start("sleep 4")
    assert first.says("at work")
    second.start("exit 0")
    assert second.says("waiting until job@first has ended")
    assert "at work" not in second.journal
    assert first.ends() == "success"
    assert second.ends() == "success"
    assert "at work" in second.journal


def test_waiting_job_that_is_given_up_leaves_the_running_one_alone(job: Jobs) -> None:
    first, second = job("job@first"), job("job@second")
    first.start("sleep 6")
    assert first.says("at work")
    second.start("exit 0")
    assert second.says("waiting until")
    second.host.check_output("systemctl stop %s", second.unit)
    assert first.ends() == "success"


def test_job_over_its_time_limit_ends(host: Host, job: Jobs) -> None:
    slow = job("job@slow")
    slow.start("sleep 3600")
    assert slow.ends() == "timeout"
    assert "left behind by job@slow: over its time limit of 15 s" in slow.journal
    assert host.check_output("docker ps --all --quiet --filter name=job-") == ""


def test_what_a_killed_client_leaves_makes_room_for_the_next(host: Host, job: Jobs) -> None:
    """The container outlives a client that is killed, and must not run beside the next job."""
    first, second = job("job@first"), job("job@second")
    first.start("sleep 3600")
    assert first.says("at work")
    second.start("exit 0")
    assert second.says("waiting until job@first")
    host.check_output("kill -9 %s", first.shown("MainPID"))
    assert second.ends() == "success"
    assert first.ends() == "signal"
    assert "left behind by job@first: killed from outside" in first.journal


def test_job_that_fails_by_itself_is_followed_up_and_one_that_succeeds_is_not(
    job: Jobs,
) -> None:
    failing, fine = job("job@failing"), job("job@fine")
    failing.start("exit 3")
    assert failing.ends() == "exit-code"
    assert "left behind by job@failing: exit-code, exit status 3" in failing.journal
    fine.start("exit 0")
    assert fine.ends() == "success"
    assert "left behind" not in fine.journal


def test_what_is_no_longer_wanted_goes_with_its_timers_and_jobs(
    host: Host, job: Jobs, playbook: Playbook
) -> None:
    timer = r"[Timer]\nOnCalendar=daily\nUnit=job@daily.service\n[Install]\nWantedBy=timers.target\n"
    host.check_output(f"printf '{timer}' >/etc/systemd/system/job-daily.timer")
    host.check_output("systemctl enable --now job-daily.timer")
    running = job("job@daily")
    running.start("sleep 3600")
    assert running.says("at work")
    for changes in (True, False):
        removed = playbook("molecule/service/remove.yml")
        assert removed.returncode == 0, removed.stdout
        assert ("changed=0" not in removed.stdout) is changes
        assert host.check_output("systemctl list-units --all --plain --no-legend 'job*'") == ""
    assert host.run("ls /etc/systemd/system/job* /etc/default/job* | grep .").rc != 0
    assert host.check_output("docker ps --all --quiet --filter name=job") == ""
    assert host.service("web").is_running
    assert playbook("molecule/service/job.yml").returncode == 0
