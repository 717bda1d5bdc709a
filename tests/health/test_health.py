"""What counts as a change, who is told, and that a message arrives in the end."""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
from pathlib import Path
from typing import Any

import health
import pytest
from looks import Check
from verify import NoMemory

from notify import __main__ as notify
from tests.health.conftest import HOUR

DISK = Check("disk:/", "disk of /", "warning", "91 % full", "sudo du")
DOWN = Check("service:mlflow", "mlflow", "failed", "it is inactive", "sudo journalctl")
UP = Check("service:mlflow", "mlflow", "ok", "runs and answers")
FAILED = Check("training", "training", "failed", "trainer@manual failed (oom-kill)", case="1")


def note(memory: health.Memory, now: float, *found: Check) -> list[tuple[str, str]]:
    """Note what was found; return what is told: from which state to which."""
    return [(told["from"], told["to"]) for told in memory.note("group", list(found), now)]


def test_what_is_a_fact_counts_at_once_and_is_told_once(memory: health.Memory, now: float) -> None:
    assert note(memory, now, DISK) == [("ok", "warning")]
    assert note(memory, now + 300, DISK) == []
    assert memory.checks["disk:/"]["since"] == now


def test_what_is_measured_counts_after_two_looks_and_clears_at_once(
    memory: health.Memory, now: float
) -> None:
    assert note(memory, now, DOWN) == []
    assert memory.checks[DOWN.key]["state"] == "ok"
    assert "counts if the next one agrees" in memory.checks[DOWN.key]["text"]
    assert note(memory, now, UP) == []
    assert note(memory, now, DOWN) == []
    assert note(memory, now, DOWN) == [("ok", "failed")]
    assert note(memory, now, UP) == [("failed", "ok")]


def test_what_stays_failed_is_told_daily(memory: health.Memory, now: float) -> None:
    assert note(memory, now, FAILED) == [("ok", "failed")]
    assert note(memory, now + 23 * HOUR, FAILED) == []
    assert note(memory, now + 24 * HOUR, FAILED) == [("failed", "failed")]
    assert note(memory, now + 25 * HOUR, FAILED) == []


def test_each_failed_training_is_told(memory: health.Memory, now: float) -> None:
    again = Check(FAILED.key, FAILED.title, "failed", "trainer@manual failed (timeout)", case="2")
    assert note(memory, now, FAILED) == [("ok", "failed")]
    assert note(memory, now, again) == [("failed", "failed")]


def test_what_is_no_longer_looked_at_is_forgotten(memory: health.Memory, now: float) -> None:
    note(memory, now, DISK, FAILED)
    memory.note("another group", [DOWN], now)
    note(memory, now, FAILED)
    assert set(memory.checks) == {FAILED.key, DOWN.key}


def test_champions_are_learned_and_changes_told(memory: health.Memory, now: float) -> None:
    wine = {"version": "1", "model": "svc", "metric": "f1_macro", "score": "0.98", "run": "0123abcd"}
    assert memory.note_champions({"wine": wine}, now) == []
    (told,) = memory.note_champions({"wine": wine | {"version": "2"}}, now)
    assert (told["key"], told["from"], told["to"]) == ("champion:wine", "v1", "v2")
    assert told["text"] == "svc, f1_macro 0.98, run 0123abcd"
    (gone,) = memory.note_champions({}, now)
    assert (gone["from"], gone["to"]) == ("v2", "none")


def test_memory_outlives_the_process_and_damage(
    memory: health.Memory, now: float, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    note(memory, now, DISK)
    memory.save()
    assert (folder / "memory.json").stat().st_mode & 0o777 == 0o600
    assert health.Memory(folder / "memory.json", folder / "spare.json").checks == memory.checks
    for damage in ('{"checks": {', "[]", "\x00"):
        (folder / "memory.json").write_text(damage)
        assert health.Memory(folder / "memory.json", folder / "spare.json").checks == {}
    assert "begun anew" in capsys.readouterr().out


def test_everybody_may_read_what_was_found(memory: health.Memory, now: float, folder: Path) -> None:
    note(memory, now, Check("backup", "backup", "ok", "the last was 5 min ago"), DISK)
    assert health.publish(folder / "state.json", memory, now, now + 300)
    assert (folder / "state.json").stat().st_mode & 0o777 == 0o644
    said = json.loads((folder / "state.json").read_text())
    assert [check["key"] for check in said["checks"]] == ["disk:/", "backup"]
    assert set(said["checks"][0]) == {"key", "title", "state", "text", "since", "do"}


def trouble(memory: health.Memory, sender: health.Sender, now: float, *found: Check) -> None:
    """Note trouble, tell and deliver, as a look does."""
    health.tell(memory, sender, memory.note("group", list(found), now), now)
    health.deliver(memory, sender, now)


def test_changes_of_one_look_are_one_message(
    memory: health.Memory, sender: Any, webhook: Any, now: float
) -> None:
    trouble(memory, sender({"team": webhook.url}), now, DISK, FAILED)
    ((_, said),) = webhook.taken
    assert said["title"] == "mlstack on my-server: disk of /: warning, and 1 more"
    assert said["message"] == (
        "disk of /: ok -> warning\n91 % full\nsudo du\n\n"
        "training: ok -> failed\ntrainer@manual failed (oom-kill)"
    )
    assert memory.outbox == []
    assert memory.hooks["team"]["problem"] == ""


def test_a_hook_gets_what_it_asks_for(memory: health.Memory, sender: Any, webhook: Any, now: float) -> None:
    hooks = sender(
        {"team": webhook.url}, kinds=["disk", "training"], at_least="failed", title="$summary!", body="$key"
    )
    trouble(memory, hooks, now, DISK, FAILED)
    ((_, said),) = webhook.taken
    assert (said["title"], said["message"]) == ("training: failed!", "training")
    # That it is over is told as well.
    trouble(memory, hooks, now + 300, Check(FAILED.key, FAILED.title, "ok", "fine"))
    assert webhook.taken[-1][1]["title"] == "training: ok!"


def test_a_command_gets_the_message(memory: health.Memory, sender: Any, folder: Path, now: float) -> None:
    hooks = sender(
        {"page": f'command: cat > {folder}/said; echo "$HEALTH_STATE $HEALTH_TITLE" > {folder}/title'}
    )
    trouble(memory, hooks, now, DISK)
    assert json.loads((folder / "said").read_text())["events"][0]["key"] == "disk:/"
    assert (folder / "title").read_text() == "warning mlstack on my-server: disk of /: warning\n"


def test_a_dead_hook_is_logged_and_tried_again_ever_later(
    memory: health.Memory, sender: Any, now: float, capsys: pytest.CaptureFixture[str]
) -> None:
    hooks = sender({"dead": "http://127.0.0.1:9/s3cret", "shell": "command: echo no such pager >&2; exit 3"})
    trouble(memory, hooks, now, DISK)
    logged = capsys.readouterr().out
    assert "hook dead failed: it could not be reached (ConnectionError)" in logged
    assert "hook shell failed: the command ended with status 3. no such pager" in logged
    assert "s3cret" not in logged
    assert {round(told["next"] - now) for told in memory.outbox} == {300}
    health.deliver(memory, hooks, now + 200)
    assert {told["tries"] for told in memory.outbox} == {1}
    health.deliver(memory, hooks, now + 301)
    assert {round(told["next"] - now) for told in memory.outbox} == {901}
    checks = {check.key: check for check in health.hook_checks(memory, hooks)}
    assert checks["hook:dead"].state == "failed"
    assert "(1 waiting)" in checks["hook:dead"].text


def test_a_message_arrives_once_its_hook_is_back(
    memory: health.Memory, sender: Any, webhook: Any, now: float
) -> None:
    trouble(memory, sender({"team": "http://127.0.0.1:9/"}), now, DISK)
    memory.save()
    back = sender({"team": webhook.url})
    health.deliver(memory, back, now + 301)
    assert [said["message"].splitlines()[0] for _, said in webhook.taken] == ["disk of /: ok -> warning"]
    assert health.hook_checks(memory, back)[0].state == "ok"


def test_after_a_day_a_message_is_given_up(
    memory: health.Memory, sender: Any, now: float, capsys: pytest.CaptureFixture[str]
) -> None:
    hooks = sender({"dead": "command: exit 1"})
    trouble(memory, hooks, now, DISK)
    health.deliver(memory, hooks, now + 25 * HOUR)
    assert "The message is given up" in capsys.readouterr().out
    assert memory.outbox == []


def test_the_failure_of_a_hook_is_told_to_the_others_alone(
    memory: health.Memory, sender: Any, webhook: Any, now: float
) -> None:
    hooks = sender({"dead": "command: exit 1", "team": webhook.url})
    trouble(memory, hooks, now, DISK)
    health.tell(memory, hooks, memory.note("hooks", health.hook_checks(memory, hooks), now), now)
    health.deliver(memory, hooks, now + 1)
    assert webhook.taken[-1][1]["title"] == "mlstack on my-server: hook dead: failed"
    assert [told["hook"] for told in memory.outbox] == ["dead"]


def test_messages_of_a_hook_that_was_removed_are_dropped(
    memory: health.Memory, sender: Any, now: float
) -> None:
    trouble(memory, sender({"old": "command: exit 1"}), now, DISK)
    health.deliver(memory, sender({}), now + 301)
    assert (memory.outbox, memory.hooks) == ([], {})


def test_a_container_that_does_not_answer_is_a_failure(
    memory: health.Memory, sender: Any, webhook: Any, folder: Path, now: float
) -> None:
    hooks = sender({"team": webhook.url})
    trouble(memory, hooks, now, DISK)
    hooks = health.Sender(folder, hooks.hooks, lambda: None)  # what it answered the last time is still there
    trouble(memory, hooks, now, FAILED)
    assert memory.hooks["team"]["problem"] == "health@send did not run: journalctl -u health@send says why"
    # Nor is another file read as root.
    (folder / "answers/answers.json").unlink()
    (folder / "answers/answers.json").symlink_to("/etc/hostname")
    health.deliver(memory, hooks, now + 301)
    assert len(memory.outbox) == 1


@pytest.mark.parametrize("told", ["x" * 300_000, "a\0b", "caf\udce9"])
def test_a_message_that_no_command_could_take_stops_nothing(
    memory: health.Memory, sender: Any, webhook: Any, now: float, told: str
) -> None:
    hooks = sender({"odd": "command: printf '\\377' >&2; exit 1", "team": webhook.url})
    trouble(memory, hooks, now, Check("disk:/", "disk of /", "warning", told))
    assert memory.hooks["odd"]["problem"]
    assert len(webhook.taken) == 1


def test_a_long_message_reaches_a_command_whole(
    memory: health.Memory, sender: Any, folder: Path, now: float
) -> None:
    hooks = sender({"page": f"command: cat > {folder}/said"})
    trouble(memory, hooks, now, Check("disk:/", "disk of /", "warning", "x" * 300_000))
    assert memory.hooks["page"]["problem"] == ""
    assert len(json.loads((folder / "said").read_text())["body"]) > 300_000


def test_a_message_whose_arrival_is_unknown_waits_a_day(
    memory: health.Memory, sender: Any, webhook: Any, now: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, hooks = notify._answer, sender({"team": webhook.url})

    def full(file: Path, run: str, problems: dict[str, str]) -> None:
        if problems:
            raise OSError(errno.ENOSPC, "No space left on device")
        answer(file, run, problems)

    def start() -> None:
        with contextlib.suppress(OSError):
            job()

    job, hooks._start = hooks._start, start
    monkeypatch.setattr(notify, "_answer", full)
    trouble(memory, hooks, now, DISK)
    health.deliver(memory, hooks, now + 23 * HOUR)
    assert len(webhook.taken) == 1
    assert "could not write whether it arrived" in health.hook_checks(memory, hooks)[0].text


def test_a_disk_that_takes_nothing_neither_stops_messages_nor_repeats_them(
    folder: Path, sender: Any, now: float, capsys: pytest.CaptureFixture[str]
) -> None:
    hooks = sender({"page": f"command: echo told >> {folder}/said", "team": "http://127.0.0.1:9/"})
    (folder / "messages").rename(folder / "gone")
    for _ in range(2):
        memory = health.Memory(folder / "nowhere/memory.json", folder / "spare.json")
        trouble(memory, hooks, now, DISK)
        memory.save()
    assert (folder / "said").read_text() == "told\n"
    assert "memory.json can't be written: No such file or directory" in capsys.readouterr().out
    assert "health@send can't be told" in memory.hooks["team"]["problem"]
    # Once it takes something again, it is used again.
    (folder / "nowhere").mkdir()
    memory.save()
    assert not (folder / "spare.json").exists()


def test_a_test_message_says_what_each_hook_answered(
    sender: Any, webhook: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert health.test(sender({"team": webhook.url}, kinds=[])) == 0
    assert "hook team: the message arrived" in capsys.readouterr().out
    assert health.test(sender({"team": webhook.url, "dead": "command: exit 1"})) == 1
    assert "hook dead: the command ended with status 1." in capsys.readouterr().out


class Looks:
    """Looks of which each group is noted, and one may break."""

    def __init__(self, broken: str = "", error: Exception | None = None) -> None:
        self.looked: list[str] = []
        self._error = error or http.client.IncompleteRead(b"")
        self.verify = type("Checks", (), {"champions": {}})()
        self._broken = broken

    def champions(self) -> None:
        if self._broken == "champions":
            raise IndexError("no item")

    def show(self) -> None:
        self.looked.append("(shown)")

    def groups(self) -> dict[str, Any]:
        names = ("services", "replica", "disks", "thorough", "drift")
        return {name: lambda name=name: self._look(name) for name in names}

    def _look(self, name: str) -> list[Check]:
        self.looked.append(name)
        if name == self._broken:
            raise self._error
        return [DISK] if name == "disks" else []


def look(memory: health.Memory, looks: Looks, now: float, *, deploying: bool = False) -> list[str]:
    """Look; return what was told."""
    return [told["key"] for told in health.look(memory, looks, looks.show, deploying=deploying, now=now)]


def test_what_is_costly_is_looked_at_once_an_hour(memory: health.Memory, now: float) -> None:
    looks = Looks()
    assert look(memory, looks, now) == ["disk:/"]
    # What is known is shown before what takes long.
    assert looks.looked == ["services", "replica", "disks", "(shown)", "thorough", "(shown)", "drift"]
    looks.looked.clear()
    look(memory, looks, now + 300)
    assert looks.looked == ["services", "replica", "disks"]
    look(memory, looks, now + HOUR)
    assert "thorough" in looks.looked


@pytest.mark.parametrize("broken", ["", "drift"])
def test_costly_trouble_is_looked_at_again_soon(memory: health.Memory, now: float, broken: str) -> None:
    looks = Looks(broken)
    look(memory, looks, now)
    if not broken:
        memory.note("thorough", [DOWN], now)
    for minutes, looked in ((5, False), (15, True), (20, False), (29, False)):
        looks.looked.clear()
        told = look(memory, looks, now + 60 * minutes)
        assert ("thorough" in looks.looked) is looked
        # Two looks at it must agree, not two looks in between.
        assert ("health" in told) is (bool(broken) and looked)


def test_a_deployment_may_stop_services(memory: health.Memory, now: float) -> None:
    memory.note("services", [UP], now)
    looks = Looks()
    look(memory, looks, now, deploying=True)
    assert looks.looked == ["disks"]
    assert memory.checks[UP.key]["state"] == "ok"


def test_a_look_that_breaks_is_trouble_of_its_own(memory: health.Memory, now: float) -> None:
    looks = Looks("replica")
    assert look(memory, looks, now) == ["disk:/"]
    assert look(memory, looks, now + 300) == ["health"]
    assert memory.checks["health"]["text"] == "replica: IncompleteRead: IncompleteRead(0 bytes read)"
    assert "disks" in looks.looked


def test_champions_that_break_stop_nothing(memory: health.Memory, now: float) -> None:
    looks = Looks("champions")
    assert look(memory, looks, now) == ["disk:/"]
    assert "champions: IndexError" in memory.checks["health"]["text"]


def test_a_check_that_had_no_memory_is_no_failure(memory: health.Memory, now: float) -> None:
    for minutes in (0, 15):
        look(memory, Looks("drift", NoMemory("not enough memory to check")), now + 60 * minutes)
    known = memory.checks["health"]
    assert (known["state"], known["text"]) == ("warning", "drift: not enough memory to check")
