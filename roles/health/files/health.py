"""Look whether the platform is well, write down what was found, and tell hooks what has changed.

    health.py SETTINGS look    look, and send what is due: what mlstack-health.service does
    health.py SETTINGS test    send each hook a test message, and say what each answered

SETTINGS is a JSON file that only root reads. Needs only Python's standard library.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from string import Template
from typing import Any

import status
from looks import STATES, Check, Looks
from on_host import Deployments
from verify import NoMemory

_DAY = 86400
# Between two thorough looks, and after one that found something.
_THOROUGH_SECONDS, _TROUBLE_SECONDS = 3600, 900
_EVENTS_KEPT = 50
# Between two attempts to send: five minutes, then twice as long each time. After a day a message is given up.
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 300, 4 * 3600
_COMMAND_SECONDS, _JOB_SECONDS = 60, 330
# Linux takes at most 128 KiB for a variable.
_LONGEST_VARIABLE = 30_000
# What a restart, a busy minute or the network can make look bad once.
_MEASURED = {"service", "replica", "certificate", "health"}
# While somebody deploys, services stop and start.
_STOPPED_BY_A_DEPLOYMENT = {"services", "thorough", "replica", "drift", "schedules"}
_COSTLY = {"thorough", "drift"}
_UNKNOWN = "health@send could not write whether it arrived; it is tried again in a day"
_JOURNAL = "sudo journalctl -n 50 -u mlstack-health -u health@send"


def worse(state: str, other: str) -> str:
    """Return the worse of two states."""
    return max(state, other, key=STATES.index)


class Memory:
    """What is known from earlier looks: one file of JSON that only root reads.

    Attributes:
        checks: By key: what is published, and the `group`, what was `seen` last, `case` and `told`.
        champions: The version that is champion, by model; None before the first look.
        events: What changed lately, oldest first.
        outbox: Messages that have not arrived yet.
        hooks: By name how the last message to it went: `problem` is empty if it arrived.
        thorough: When all was looked at last.
        broken: The groups that could not be looked at: each with a state and why.

    Args:
        file: Where it is kept.
        spare: Where it is kept while that can't be written: or each look would tell all anew.
    """

    def __init__(self, file: Path, spare: Path) -> None:
        self._files = (spare, file)
        kept = next((kept for kept in self._files if kept.exists()), file)
        known = status.loaded(status.read(kept))
        if not isinstance(known, dict):
            known = {}
            if kept.exists():
                print(f"{kept} is not readable and is begun anew: what was failed before is told once more")
        self.checks: dict[str, dict[str, Any]] = known.get("checks", {})
        self.champions: dict[str, str] | None = known.get("champions")
        self.events: list[dict[str, Any]] = known.get("events", [])
        self.outbox: list[dict[str, Any]] = known.get("outbox", [])
        self.hooks: dict[str, dict[str, Any]] = known.get("hooks", {})
        self.thorough: float = known.get("thorough", 0)
        self.broken: dict[str, list[str]] = known.get("broken", {})

    def save(self) -> None:
        """Write it; a crash leaves the previous content, and what can't be written stops nothing."""
        spare, file = self._files
        known = {name: value for name, value in vars(self).items() if name != "_files"}
        if try_to_write(file, known, 0o600):
            spare.unlink(missing_ok=True)
        else:
            try_to_write(spare, known, 0o600)

    def note(self, group: str, found: list[Check], now: float) -> list[dict[str, Any]]:
        """Replace what is known of a group.

        Returns:
            The events: what changed, failed anew, or has been failed for another day.
        """
        keys = {check.key for check in found}
        self.checks = {
            key: known for key, known in self.checks.items() if known["group"] != group or key in keys
        }
        return [event for check in found if (event := self._note(group, check, now))]

    def _note(self, group: str, check: Check, now: float) -> dict[str, Any] | None:
        new = {"state": "ok", "seen": "ok", "since": now, "case": check.case, "told": 0.0}
        before = self.checks.get(check.key, new)
        state, text = check.state, check.text
        if check.kind in _MEASURED:
            # For the worse it counts once two looks in a row agree, for the better at once.
            state = min(state, worse(before["seen"], before["state"]), key=STATES.index)
            if state != check.state:
                text = f"{check.state} at one look, counts if the next one agrees: {text}"
        anew = state == "failed" and (check.case != before["case"] or now - before["told"] >= _DAY)
        tell = state != before["state"] or anew
        self.checks[check.key] = {
            "group": group,
            "title": check.title,
            "state": state,
            "text": text,
            "do": "" if state == "ok" else check.do,
            "since": before["since"] if state == before["state"] else now,
            "seen": check.state,
            "case": check.case,
            "told": now if tell else before["told"],
        }
        if not tell:
            return None
        return event(now, check.key, check.title, before["state"], state, text, self.checks[check.key]["do"])

    def note_champions(self, found: dict[str, dict[str, Any]], now: float) -> list[dict[str, Any]]:
        """Replace the champions; the first look only learns them."""
        before, self.champions = self.champions, {name: model["version"] for name, model in found.items()}
        if before is None:
            return []
        changes = []
        for name in sorted(before.keys() | self.champions.keys()):
            old, new = (f"v{known[name]}" if name in known else "none" for known in (before, self.champions))
            if old != new:
                model = found.get(name, {})
                text = "{model}, {metric} {score}, run {run}".format(**model) if model else ""
                changes.append(event(now, f"champion:{name}", f"champion of {name}", old, new, text, ""))
        return changes


def event(*values: object) -> dict[str, Any]:
    """Return an event; the values in the order of its names."""
    return dict(zip(("time", "key", "title", "from", "to", "text", "do"), values, strict=True))


class Hook:
    """Where messages go, and which.

    Args:
        settings: An entry of `health_hooks`, without the place that it leads to.
        command: What to run, if it leads to a command.
        platform: The names that templates may use in each message: `platform` and `host`.
    """

    def __init__(self, settings: dict[str, Any], command: str, platform: dict[str, str]) -> None:
        self.name: str = settings["name"]
        self.command = command.removeprefix("command:").strip()
        self._settings, self._platform = settings, platform

    def wants(self, told: dict[str, Any]) -> bool:
        """Tell whether an event is for this hook; its own failure never is."""
        kind = told["key"].partition(":")[0]
        states = [state for state in (told["from"], told["to"]) if state in STATES]
        loud = not states or any(
            STATES.index(state) >= STATES.index(self._settings["at_least"]) for state in states
        )
        return kind in self._settings["kinds"] and loud and told["key"] != f"hook:{self.name}"

    def message(self, events: list[dict[str, Any]], now: float) -> dict[str, Any]:
        """Make one message of events."""
        first, more = events[0], len(events) - 1
        summary = f"{first['title']}: {first['to']}" + (f", and {more} more" if more else "")
        states = [told["to"] for told in events if told["to"] in STATES]
        body = Template(self._settings["body"])
        texts = [
            body.safe_substitute(
                told | self._platform | {"time": time.strftime("%F %T UTC", time.gmtime(told["time"]))}
            )
            for told in events
        ]
        return {
            "id": f"{time.time_ns()}-{self.name}",
            "hook": self.name,
            "title": Template(self._settings["title"]).safe_substitute(self._platform, summary=summary),
            "body": "\n\n".join(re.sub(r"\n\s*(\n|$)", r"\1", text).strip() for text in texts),
            "state": max(states, key=STATES.index) if states else "",
            "events": events,
            "time": now,
            "tries": 0,
            "next": now,
        }


class Sender:
    """Sends messages: commands run on the host, all else in the container of the job `health@send`.

    Args:
        folder: Its `messages`, which the container reads, and `answers`, which it writes.
        hooks: By name.
        start: Starts the job, and waits for it.
    """

    def __init__(self, folder: Path, hooks: dict[str, Hook], start: Callable[[], None]) -> None:
        self.folder, self.hooks, self._start = folder, hooks, start

    def send(self, messages: list[dict[str, Any]]) -> dict[str, str]:
        """Try to send each message; return by their ids why it did not arrive, or nothing."""
        here = [told for told in messages if self.hooks[told["hook"]].command]
        there = [told for told in messages if told not in here]
        problems = {told["id"]: self._run(self.hooks[told["hook"]].command, told) for told in here}
        try:
            return problems | self._send_from_container(there)
        except OSError as error:
            return problems | {told["id"]: f"health@send can't be told: {error}" for told in there}

    def _run(self, command: str, told: dict[str, Any]) -> str:
        shown = {
            f"HEALTH_{name.upper()}": told[name].replace("\0", " ")[:_LONGEST_VARIABLE]
            for name in ("title", "body", "state")
        }
        try:
            done = subprocess.run(  # noqa: S603 - the operator's own command
                ["/bin/sh", "-c", command],
                input=json.dumps({name: told[name] for name in ("title", "body", "state", "events")}),
                env=os.environ | shown,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_COMMAND_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"the command did not end within {_COMMAND_SECONDS} s"
        except Exception as error:  # noqa: BLE001 - one message must not stop the others, nor the next look
            return f"the command did not start: {type(error).__name__}: {error}"
        said = " ".join(done.stderr.strip().splitlines()[-1:])
        return f"the command ended with status {done.returncode}. {said}".strip() if done.returncode else ""

    def _send_from_container(self, messages: list[dict[str, Any]]) -> dict[str, str]:
        if not messages:
            return {}
        asked = str(time.time_ns())
        shown = [{name: told[name] for name in ("id", "hook", "title", "body", "state")} for told in messages]
        write(self.folder / "messages/messages.json", {"run": asked, "messages": shown}, 0o644)
        self._start()
        answers = self._answers()
        if answers.get("run") != asked:
            lost = "health@send did not run: journalctl -u health@send says why"
            return {told["id"]: lost for told in messages}
        return {told["id"]: str(answers["problems"].get(told["id"], _UNKNOWN)) for told in messages}

    def _answers(self) -> dict[str, Any]:
        """Read what the container wrote, which may be anything: it is not followed elsewhere as root."""
        file_name = self.folder / "answers/answers.json"
        try:
            with os.fdopen(os.open(file_name, os.O_RDONLY | os.O_NOFOLLOW)) as file:
                answers = json.load(file)
        except (OSError, ValueError):
            return {}
        return answers if isinstance(answers, dict) and isinstance(answers.get("problems"), dict) else {}


def start_job() -> None:
    """Run `health@send`; if it fails, or does not end, there are no answers."""
    command = ["systemctl", "start", "health@send.service"]
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(command, capture_output=True, timeout=_JOB_SECONDS, check=False)  # noqa: S603


def deliver(memory: Memory, sender: Sender, now: float) -> None:
    """Send what is due; what fails is logged and tried again, later and later, for a day."""
    memory.outbox = [told for told in memory.outbox if told["hook"] in sender.hooks]
    memory.hooks = {name: said for name, said in memory.hooks.items() if name in sender.hooks}
    due = [told for told in memory.outbox if told["next"] <= now]
    memory.save()  # before: a crash sends a message twice rather than never
    problems = sender.send(due)
    for told in due:
        problem = problems[told["id"]]
        memory.hooks[told["hook"]] = {"problem": problem, "time": now}
        last = now - told["time"] >= _DAY
        if problem:
            print(f"hook {told['hook']} failed: {problem}" + (". The message is given up" if last else ""))
            wait = min(_FIRST_WAIT_SECONDS * 2 ** told["tries"], _LONGEST_WAIT_SECONDS)
            told["next"] = now + (_DAY if problem == _UNKNOWN else wait)
            told["tries"] += 1
        if last or not problem:
            memory.outbox.remove(told)


def hook_checks(memory: Memory, sender: Sender) -> list[Check]:
    """Judge the hooks by how the last message to each went."""
    found = []
    for name in sender.hooks:
        problem = memory.hooks.get(name, {}).get("problem", "")
        waiting = sum(told["hook"] == name for told in memory.outbox)
        text = "the last message arrived" if name in memory.hooks else "nothing to send yet"
        if problem:
            text = f"{problem} ({waiting} waiting)"
        found.append(Check(f"hook:{name}", f"hook {name}", "failed" if problem else "ok", text, _JOURNAL))
    return found


def look(
    memory: Memory, looks: Looks, show: Callable[[], object], *, deploying: bool, now: float
) -> list[dict[str, Any]]:
    """Look at everything that is due, and note it.

    Args:
        memory: What is known.
        looks: What can be looked at.
        show: Called with what is known before anything that takes long.
        deploying: Whether somebody deploys: then services may be down.
        now: The time.

    Returns:
        What changed.
    """
    bad = {known["group"] for known in memory.checks.values() if known["seen"] != "ok"} | memory.broken.keys()
    wait = _TROUBLE_SECONDS if {"thorough"} & bad or _COSTLY & memory.broken.keys() else _THOROUGH_SECONDS
    thorough = now - memory.thorough >= wait
    skipped = (_STOPPED_BY_A_DEPLOYMENT if deploying else set()) | (set() if thorough else _COSTLY)

    def champions() -> list[dict[str, Any]]:
        found = looks.champions()
        changes = [] if found is None else memory.note_champions(found, now)
        looks.verify.champions = memory.champions or {}
        return changes

    def noted(group: str, checks: Callable[[], list[Check]]) -> list[dict[str, Any]]:
        return memory.note(group, checks(), now)

    known = {name: partial(noted, name, checks) for name, checks in looks.groups().items()}
    due = {"champions": champions} | {name: do for name, do in known.items() if name not in skipped}
    events = []
    for group, do in due.items():
        if group in _COSTLY:
            show()
        memory.broken.pop(group, None)
        try:
            events += do()
        except NoMemory as error:
            memory.broken[group] = ["warning", str(error)]
        except Exception as error:  # noqa: BLE001 - one group must not stop the others, nor that they are told
            memory.broken[group] = ["failed", f"{type(error).__name__}: {error}"]
    # What is not looked at each time counts once it has been looked at again.
    if not memory.broken or memory.broken.keys() & due:
        state = max((found for found, _ in memory.broken.values()), key=STATES.index, default="ok")
        text = "; ".join(f"{group}: {why}" for group, (_, why) in memory.broken.items())
        check = Check("health", "looks at the host", state, text or "all could be looked at", _JOURNAL)
        events += memory.note("looks", [check], now)
    if due.keys() >= _COSTLY:
        memory.thorough = now
    return events


def publish(file: Path, memory: Memory, now: float, following: float | None) -> bool:
    """Write what everybody may read: the checks, the worst first, the last events, and the next look."""
    shown = ("title", "state", "text", "since", "do")
    checks = [{"key": key} | {name: known[name] for name in shown} for key, known in memory.checks.items()]
    checks.sort(key=lambda check: (-STATES.index(check["state"]), check["key"]))
    found = {"time": now, "next": following, "checks": checks, "events": memory.events[-_EVENTS_KEPT:]}
    return try_to_write(file, found, 0o644)


def try_to_write(file: Path, content: dict[str, Any], mode: int) -> bool:
    """Write JSON; print why that fails, and tell whether it did not."""
    try:
        write(file, content, mode)
    except OSError as error:
        print(f"{file} can't be written: {error.strerror}")
        return False
    return True


def write(file: Path, content: dict[str, Any], mode: int) -> None:
    """Write JSON; a reader sees the previous content or the new one."""
    new = file.with_suffix(".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as opened:
        json.dump(content, opened)
        opened.flush()
        os.fsync(opened.fileno())
    new.replace(file)


def run(settings: dict[str, Any], sender: Sender) -> int:
    """Look, tell, and write down what is known now; return 1 if that can't be written."""
    folder, now = Path(settings["folder"]), time.time()
    memory = Memory(folder / "memory.json", Path(settings["run_folder"], "memory.json"))
    looks = Looks(settings, memory.champions or {})
    following = looks.next()

    def show() -> bool:
        return publish(folder / "state.json", memory, now, following)

    deploying = Deployments(**settings["deployment"]).holder()
    events = look(memory, looks, show, deploying=bool(deploying), now=now)
    for said in events:
        print(f"{said['title']}: {said['from']} -> {said['to']}. {said['text']}")
    # A hook's own failure is told with the next look's messages.
    tell(memory, sender, events, now)
    show()  # sending may take minutes
    deliver(memory, sender, now)
    tell(memory, sender, memory.note("hooks", hook_checks(memory, sender), now), now)
    memory.save()
    return int(not show())


def tell(memory: Memory, sender: Sender, events: list[dict[str, Any]], now: float) -> None:
    """Remember events, and put a message for each hook that wants any into the outbox."""
    memory.events = (memory.events + events)[-_EVENTS_KEPT:]
    for hook in sender.hooks.values():
        wanted = [told for told in events if hook.wants(told)]
        if wanted:
            memory.outbox.append(hook.message(wanted, now))


def test(sender: Sender) -> int:
    """Send each hook a message, whatever it is for; return 1 if one did not arrive."""
    now = time.time()
    text = "This is a test: nothing is wrong, and nothing needs to be done."
    told = event(now, "health", "test message", "ok", "ok", text, "")
    messages = [hook.message([told], now) for hook in sender.hooks.values()]
    problems = sender.send(messages)
    for message in messages:
        print(f"hook {message['hook']}: {problems[message['id']] or 'the message arrived'}")
    return int(any(problems.values()))


def main() -> int:
    """Do what is asked, one process at a time."""
    settings = json.loads(Path(sys.argv[1]).read_text())
    os.umask(0o022)
    # Not beside what it writes: a disk that is full or broken must not keep it from telling that.
    lock_file = Path(settings["run_folder"], "lock")
    lock_file.parent.mkdir(exist_ok=True)
    with lock_file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        commands, platform = settings["commands"], settings["platform"]
        hooks = [Hook(entry, commands.get(entry["name"], ""), platform) for entry in settings["hooks"]]
        sender = Sender(Path(settings["folder"]), {hook.name: hook for hook in hooks}, start_job)
        if sys.argv[2] == "test":
            return test(sender)
        return run(settings, sender)


if __name__ == "__main__":
    sys.exit(main())
