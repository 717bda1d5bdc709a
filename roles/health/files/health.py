"""Look whether the platform is well, write down what was found, and tell hooks what has changed.

    health.py SETTINGS look    look, and send what is due: what mlstack-health.service does
    health.py SETTINGS test    send each hook a test message, and say what each answered

SETTINGS is a JSON file that only root reads. Needs only Python's standard library.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from string import Template
from typing import Any

import status
from looks import STATES, Check, Looks
from on_host import Deployments
from verify import CheckFailed

_DAY = 86400
_THOROUGH_SECONDS = 3600
_EVENTS_KEPT = 50
# Between two attempts to send: five minutes, then twice as long each time. After a day a message is given up.
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 300, 4 * 3600
_COMMAND_SECONDS = 60
# What a restart, a busy minute or the network can make look bad once.
_MEASURED = {"service", "replica", "certificate", "health"}
# While somebody deploys, services stop and start.
_STOPPED_BY_A_DEPLOYMENT = {"services", "thorough", "replica", "drift"}
_COSTLY = {"thorough", "drift"}
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
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        known = status.loaded(status.read(file)) or {}
        if not known and file.exists():
            print(f"{file} is not readable and is begun anew: what was failed before is told once more")
        self.checks: dict[str, dict[str, Any]] = known.get("checks", {})
        self.champions: dict[str, str] | None = known.get("champions")
        self.events: list[dict[str, Any]] = known.get("events", [])
        self.outbox: list[dict[str, Any]] = known.get("outbox", [])
        self.hooks: dict[str, dict[str, Any]] = known.get("hooks", {})
        self.thorough: float = known.get("thorough", 0)

    def save(self) -> None:
        """Write it; a crash leaves the previous content."""
        write(self._file, {name: value for name, value in vars(self).items() if name != "_file"}, 0o600)

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
        problems = {told["id"]: self._run(self.hooks[told["hook"]].command, told) for told in here}
        return problems | self._send_from_container([told for told in messages if told not in here])

    def _run(self, command: str, told: dict[str, Any]) -> str:
        shown = {"HEALTH_TITLE": told["title"], "HEALTH_BODY": told["body"], "HEALTH_STATE": told["state"]}
        try:
            done = subprocess.run(  # noqa: S603 - the operator's own command
                ["/bin/sh", "-c", command],
                input=json.dumps({name: told[name] for name in ("title", "body", "state", "events")}),
                env=os.environ | shown,
                capture_output=True,
                text=True,
                timeout=_COMMAND_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"the command did not end within {_COMMAND_SECONDS} s"
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
        said = answers["problems"] if answers.get("run") == asked else {}
        lost = "health@send did not run: journalctl -u health@send says why"
        return {told["id"]: str(said.get(told["id"], lost)) for told in messages}

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
    """Run `health@send`; if it fails, there are no answers."""
    subprocess.run(["systemctl", "start", "health@send.service"], capture_output=True, check=False)  # noqa: S607


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
            told["next"] = now + min(_FIRST_WAIT_SECONDS * 2 ** told["tries"], _LONGEST_WAIT_SECONDS)
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


def look(memory: Memory, looks: Looks, *, deploying: bool, now: float) -> list[dict[str, Any]]:
    """Look at everything that is due, and note it.

    Args:
        memory: What is known.
        looks: What can be looked at.
        deploying: Whether somebody deploys: then services may be down.
        now: The time.

    Returns:
        What changed.
    """
    trouble = any(known["group"] == "thorough" and known["seen"] != "ok" for known in memory.checks.values())
    thorough = now - memory.thorough >= _THOROUGH_SECONDS or trouble
    skipped = (_STOPPED_BY_A_DEPLOYMENT if deploying else set()) | (set() if thorough else _COSTLY)
    found = looks.champions()
    events = [] if found is None else memory.note_champions(found, now)
    looks.verify.champions = memory.champions or {}
    broken = []
    for group, checks in looks.groups().items():
        if group in skipped:
            continue
        try:
            events += memory.note(group, checks(), now)
        except (CheckFailed, OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
            broken.append(f"{group}: {type(error).__name__}: {error}")
    state, text = ("failed", "; ".join(broken)) if broken else ("ok", "all could be looked at")
    events += memory.note("looks", [Check("health", "looks at the host", state, text, _JOURNAL)], now)
    if not broken and not skipped & _COSTLY:
        memory.thorough = now
    return events


def publish(file: Path, memory: Memory, now: float) -> None:
    """Write what everybody may read: the checks, the worst first, and the last events."""
    shown = ("title", "state", "text", "since", "do")
    checks = [{"key": key} | {name: known[name] for name in shown} for key, known in memory.checks.items()]
    checks.sort(key=lambda check: (-STATES.index(check["state"]), check["key"]))
    write(file, {"time": now, "checks": checks, "events": memory.events[-_EVENTS_KEPT:]}, 0o644)


def write(file: Path, content: dict[str, Any], mode: int) -> None:
    """Write JSON; a reader sees the previous content or the new one."""
    new = file.with_suffix(".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as opened:
        json.dump(content, opened)
        opened.flush()
        os.fsync(opened.fileno())
    new.replace(file)


def run(settings: dict[str, Any], sender: Sender) -> None:
    """Look, tell, and write down what is known now."""
    folder, now = Path(settings["folder"]), time.time()
    memory = Memory(folder / "memory.json")
    looks = Looks(settings, memory.champions or {})
    deploying = Deployments(**settings["deployment"]).holder()
    events = look(memory, looks, deploying=bool(deploying), now=now)
    for said in events:
        print(f"{said['title']}: {said['from']} -> {said['to']}. {said['text']}")
    # A hook's own failure is told with the next look's messages.
    tell(memory, sender, events, now)
    deliver(memory, sender, now)
    tell(memory, sender, memory.note("hooks", hook_checks(memory, sender), now), now)
    memory.save()
    publish(folder / "state.json", memory, now)


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
    folder = Path(settings["folder"])
    os.umask(0o022)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        commands, platform = settings["commands"], settings["platform"]
        hooks = [Hook(entry, commands.get(entry["name"], ""), platform) for entry in settings["hooks"]]
        sender = Sender(folder, {hook.name: hook for hook in hooks}, start_job)
        if sys.argv[2] == "test":
            return test(sender)
        run(settings, sender)
        return 0


if __name__ == "__main__":
    sys.exit(main())
