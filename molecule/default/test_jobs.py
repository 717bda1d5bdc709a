"""Training jobs on a host: by schedule, by hand, with problems of one's own, and over their limits."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from testinfra.host import Host

Playbook = Callable[..., CompletedProcess[str]]
StandIn = Callable[[str, str], Any]
UNITS = ["mlflow", "streamlit", "docker"]
PROBLEMS = Path(__file__).parent / "problems"
ASK = """\
rm -f /tmp/enough
until test -e /tmp/enough; do
  for url in http://127.0.0.1:5000/health http://127.0.0.1:8501/_stcore/health; do
    curl --silent --output /dev/null --write-out "%{http_code} " --max-time 10 $url
  done
done
"""


@pytest.fixture
def stand_in(host: Host, job: Callable[[str], Any]) -> Callable[[str, str], Any]:
    """Start an instance of the trainer's own unit, in which a few lines of Python stand for the training."""

    def start(name: str, program: str) -> object:
        unit = host.file("/etc/systemd/system/trainer@.service").content_string
        (command,) = re.findall(r"^ExecStart=.*?\n\n", unit, flags=re.DOTALL | re.MULTILINE)
        training = '"-m" "training.train_all_models" $JOB_ARGUMENTS'
        assert training in command
        drop_in = f"[Service]\nExecStart=\n{command.replace(training, f'"-c" {json.dumps(program)}')}"
        folder = f"/etc/systemd/system/trainer@{name}.service.d"
        host.check_output("mkdir -p %s && printf %%s %s >%s/test.conf", folder, drop_in, folder)
        host.check_output("systemctl daemon-reload")
        started = job(f"trainer@{name}")
        started.start()
        return started

    return start


def test_schedule_is_set(host: Host) -> None:
    assert host.service("trainer.timer").is_running
    assert host.service("trainer.timer").is_enabled
    show = "systemctl show --value --property=%s trainer.timer"
    assert host.check_output(show, "Unit") == "trainer@scheduled.service"
    assert host.check_output(show, "Persistent") == "yes"
    assert re.fullmatch(r"Mon \S+ 02:30:00 \S+", host.check_output(show, "NextElapseUSecRealtime"))
    assert "--problem diabetes --model ridge" in host.file("/etc/default/trainer@scheduled").content_string


def test_timer_starts_a_training_that_waits_for_the_one_that_runs(
    host: Host, job: Callable[[str], Any], stand_in: StandIn
) -> None:
    """The installed timer itself, with another time."""
    scheduled = job("trainer@scheduled")
    other = stand_in("other", "import time\nprint('at work', flush=True)\ntime.sleep(600)\n")
    assert other.says("at work")
    soon = host.check_output("date --utc --date='3 seconds' '+%F %T UTC'")
    drop_in = f"[Timer]\nOnCalendar=\nOnCalendar={soon}\nAccuracySec=1s\n"
    folder = "/run/systemd/system/trainer.timer.d"
    host.check_output("mkdir -p %s && printf %%s %s >%s/soon.conf", folder, drop_in, folder)
    try:
        host.check_output("systemctl daemon-reload && systemctl restart trainer.timer")
        assert scheduled.says("waiting until trainer@other has ended")
    finally:
        host.check_output("rm -r %s && systemctl daemon-reload && systemctl restart trainer.timer", folder)
    host.check_output("systemctl stop trainer@other")
    assert scheduled.ends() == "success", scheduled.journal
    (url,) = re.findall(r"\S+/#/experiments/\d+/runs/\w+", scheduled.journal)
    run = host.check_output(
        "curl --silent --fail http://127.0.0.1:5000/api/2.0/mlflow/runs/get?run_id=%s", url.split("/")[-1]
    )
    found = json.loads(run)["run"]
    assert found["info"]["status"] == "FINISHED"
    assert {"key": "mlstack.job", "value": "my-server/trainer@scheduled"} in found["data"]["tags"]


def test_job_sees_problems_of_ones_own_and_may_write_its_spool_only(host: Host, stand_in: StandIn) -> None:
    job = stand_in(
        "look",
        """
import os, pathlib
for name in ("JOB", "PROBLEMS_DIR", "SPOOL", "TIME_LIMIT", "BACKEND"):
    print(name, os.environ["MLSTACK_" + name])
problems, spool = pathlib.Path(os.environ["MLSTACK_PROBLEMS_DIR"]), pathlib.Path(os.environ["MLSTACK_SPOOL"])
print(*sorted(str(path.relative_to(problems)) for path in problems.rglob("*")))
print(len((problems / "data/flowers.csv").read_text().splitlines()), "lines")
(spool / "written").touch()
try:
    (problems / "written").touch()
except OSError as error:
    print(error.strerror)
""",
    )
    assert job.ends() == "success", job.journal
    assert {
        "JOB my-server/trainer@look",
        "TIME_LIMIT 3600",
        "BACKEND local",
        "data data/flowers.csv flowers.yaml notes.txt",
        "61 lines",
        "Read-only file system",
    } <= set(job.journal.splitlines())
    written = host.file("/var/lib/mlstack/trainer/spool/written")
    assert (written.exists, written.uid) == (True, 10001)


def test_job_that_allocates_without_end_is_stopped_while_the_app_answers(
    host: Host, stand_in: StandIn
) -> None:
    before = host.check_output("systemctl show --property=Id,MainPID,NRestarts %s", " ".join(UNITS))
    host.check_output("nohup sh -c %s >/tmp/answers 2>&1 &", ASK)
    job = stand_in("hog", "hoard = []\nwhile True:\n    hoard.append(b'x' * (1 << 20))\n")
    assert job.ends() == "exit-code"
    host.check_output("touch /tmp/enough; sleep 2")
    answers = host.check_output("cat /tmp/answers").split()
    assert set(answers) == {"200"}
    assert len(answers) > 20
    assert "trainer@hog failed: over its memory limit of 1536m" in job.journal
    assert host.check_output("docker ps --all --quiet --filter name=trainer-") == ""
    assert host.check_output("systemctl show --property=Id,MainPID,NRestarts %s", " ".join(UNITS)) == before


@pytest.fixture(scope="module")
def problems_of_now(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The problems with one file less and one more."""
    folder = tmp_path_factory.mktemp("problems") / "mine"
    shutil.copytree(PROBLEMS, folder)
    (folder / "notes.txt").unlink()
    (folder / "data/a new file.csv").write_text("a,b\n")
    return folder


def sent_files(host: Host) -> list[list[str]]:
    """List the files of each generation of problems on the host."""
    generations = host.check_output("ls /var/lib/mlstack/trainer/problems").split()
    find = "cd /var/lib/mlstack/trainer/problems/%s && find -type f | sort"
    return [host.check_output(find, name).splitlines() for name in generations]


def test_training_by_hand_is_refused_while_another_runs(
    host: Host, stand_in: StandIn, playbook: Playbook, problems_of_now: Path
) -> None:
    other = stand_in("other", "import time\nprint('at work', flush=True)\ntime.sleep(600)\n")
    assert other.says("at work")
    refused = playbook(
        "train.yml", "-e", "model=knn", "-e", "problem=wine", "-e", f"trainer_problems_dir={problems_of_now}"
    )
    assert refused.returncode != 0
    assert "trainer@other.service is running" in " ".join(refused.stdout.split())
    # The other keeps the problems that it began with.
    assert ["./data/flowers.csv", "./flowers.yaml", "./notes.txt"] in sent_files(host)


def test_training_gives_a_champion_that_the_app_predicts_with(
    host: Host, playbook: Playbook, problems_of_now: Path
) -> None:
    training = playbook(
        "train.yml",
        "-e",
        "model=knn",
        "-e",
        "problem=wine,flowers",
        "-e",
        f"trainer_problems_dir={problems_of_now}",
    )
    assert training.returncode == 0, training.stdout
    assert set(re.findall(r"models/(\w+)/versions", training.stdout)) == {"wine", "flowers"}
    assert host.check_output("docker ps --all --quiet --filter name=trainer-") == ""
    checks = playbook("playbooks/verify.yml", "-e", "verify_require_champion=true")
    assert checks.returncode == 0, checks.stdout
    assert "failed" not in checks.stdout.split("PLAY RECAP")[0]


def test_broken_problem_is_never_installed(host: Host, playbook: Playbook, problems_of_now: Path) -> None:
    """A schedule would fail on it."""
    before, broken = sent_files(host), problems_of_now / "broken.yml"
    broken.write_text("name: broken\ntask: classification\n")
    try:
        refused = playbook("train.yml", "-e", "problem=wine", "-e", f"trainer_problems_dir={problems_of_now}")
    finally:
        broken.unlink()
    assert refused.returncode != 0
    assert "broken.yml:1: data: required, but missing" in refused.stdout
    assert "are not installed" in refused.stdout
    assert sent_files(host) == before


def test_what_is_no_longer_there_is_removed_from_the_host(host: Host) -> None:
    """The training of before had no schedule, and other problems."""
    assert sent_files(host) == [["./data/a new file.csv", "./data/flowers.csv", "./flowers.yaml"]]
    assert not host.file("/etc/systemd/system/trainer.timer").exists
    assert not host.file("/etc/default/trainer@scheduled").exists
    assert host.run("systemctl is-active trainer.timer").stdout.strip() == "inactive"


def test_runs_of_a_training_that_was_killed_are_closed(host: Host, job: Callable[[str], Any]) -> None:
    killed = job("trainer@killed")
    killed.start("--problem digits,breast_cancer --model all")
    assert killed.says("[ 1/")
    host.check_output("docker kill trainer-killed")
    assert killed.ends() == "exit-code"
    assert "trainer@killed failed: killed from outside" in killed.journal
    found = host.check_output(
        "curl --silent --fail --json %s http://127.0.0.1:5000/api/2.0/mlflow/runs/search",
        json.dumps({"experiment_ids": list(map(str, range(9))), "filter": "attributes.status = 'RUNNING'"}),
    )
    assert json.loads(found) == {}
    assert "closed as FAILED" in killed.journal


def test_champion_by_hand_is_no_change_where_it_is_champion_already(playbook: Playbook) -> None:
    same = playbook("playbooks/promote.yml", "-e", "model_name=wine", "-e", "version=1")
    assert same.returncode == 0
    assert "unchanged: wine" in same.stdout
    assert "changed=0" in same.stdout.split("PLAY RECAP")[1]


def test_champion_by_hand_is_refused_in_the_programs_own_words(playbook: Playbook) -> None:
    refused = playbook("playbooks/rollback_model.yml", "-e", "model_name=wein")
    assert refused.returncode != 0
    assert "Did you mean 'wine'?" in refused.stdout.replace("''", "'")
    assert "changed=0" in refused.stdout.split("PLAY RECAP")[1]


@pytest.mark.parametrize("name", ["promote", "rollback_model"])
def test_promotion_by_hand_asks_for_the_model(playbook: Playbook, name: str) -> None:
    asked = playbook(f"playbooks/{name}.yml")
    assert asked.returncode != 0
    assert f"playbooks/{name}.yml -e model_name=NAME" in " ".join(asked.stdout.split())
    assert "changed=0" in asked.stdout.split("PLAY RECAP")[1]
