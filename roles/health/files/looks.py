"""What `health` looks at on the host, each thing as a check. Needs only Python's standard library.

The roles `verify` and `status` look as well; their scripts are installed beside this one, used as they are.
"""

from __future__ import annotations

import calendar
import json
import re
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import status
import verify

STATES = ("ok", "warning", "failed")  # from good to bad
# What `verify` does that costs seconds, or memory in a container.
_THOROUGH = {"database_answers", "artifact_reads", "training_has_run", "app_predicts", "rest_predicts"}
_CERTIFICATE_DAYS = {"warning": 14, "failed": 3}
_LATE_SECONDS = 900  # a timer waits for its accuracy, and for the boot
_OF_A_TIMER = "Id,ActiveState,NextElapseUSecRealtime,LastTriggerUSec,Unit"
_OF_A_JOB = "Id,ActiveState,Result"


@dataclass(frozen=True)
class Check:
    """What one thing looks like now.

    Attributes:
        key: Its kind, and which of that kind it is: `disk:/`.
        title: What people call it.
        state: One of STATES.
        text: Why, in a sentence.
        do: The command to type.
        case: Distinguishes one failure from the next of the same thing, which is told as well.
    """

    key: str
    title: str
    state: str
    text: str
    do: str = ""
    case: str = ""

    @property
    def kind(self) -> str:
        """What hooks choose by."""
        return self.key.partition(":")[0]


class Looks:
    """All that can be looked at, in groups.

    Args:
        settings: What the role writes: those of `verify` and `status`, `timers`, `certificates` and so on.
        champions: The version that is champion, by model, as far as is known.
    """

    def __init__(self, settings: dict[str, Any], champions: dict[str, str]) -> None:
        self.settings, self.status, self.limits = settings, settings["status"], settings["status"]["limits"]
        self.verify = verify.Checks(settings["verify"])
        self.verify.champions = champions
        self.playbook = settings["playbook"]

    def groups(self) -> dict[str, Callable[[], list[Check]]]:
        """Return what looks at each group; a look replaces all that is known of its group."""
        return {
            "services": self.services,
            "replica": self.replica,
            "backups": self.backups,
            "disks": self.disks,
            "certificates": lambda: [certificate(place) for place in self.settings["certificates"]],
            "training": self.training,
            "schedules": self.schedules,
            # Last, because they take long.
            "thorough": self.thorough,
            "drift": self.drift,
        }

    def services(self) -> list[Check]:
        """Do what `verify` does, as far as it is cheap; a check for each service."""
        wrong: dict[str, list[str]] = {}
        for title, unit, check in self.verify.all(writing=False):
            if getattr(check, "__name__", "") not in _THOROUGH:
                state, problem = _made(check)
                what = title.removeprefix(f"{unit}: ").rstrip(".")
                wrong.setdefault(unit, []).extend([] if state == "ok" else [f"{what}: {problem}"])
        return [_service(unit, problems) for unit, problems in wrong.items()]

    def thorough(self) -> list[Check]:
        """Do the rest of what `verify` does, but write nothing; a check for each of it."""
        found = []
        for title, unit, check in self.verify.all(writing=False):
            name = getattr(check, "__name__", "")
            if name in _THOROUGH:
                key = f"service:{unit.partition('@')[0]}:{name}"
                found.append(Check(key, title.rstrip("."), *_made(check), _journal(unit)))
        return found

    def replica(self) -> list[Check]:
        """Ask how far the replica of the database is behind."""
        said = status.replica(self.status["replication_port"])
        if not said:
            return []
        state, text = "ok", f"{said.get('behind')} s behind"
        if said["problem"]:
            state, text = "failed", f"does not say how far it is: {said['problem']}"
        elif said["behind"] > self.limits["replica_seconds"]:
            state, text = "warning", f"{text}, over {self.limits['replica_seconds']} (status_replica_seconds)"
        return [Check("replica", "replica of the database", state, text, _journal("replication"))]

    def backups(self) -> list[Check]:
        """Read how the last backup and the last drill went."""
        oldest = {"last": self.limits["backup_hours"], "drill": 24 * self.limits["drill_days"]}
        named = {"last": ("backup", "backup"), "drill": ("backup:drill", "drill of the backup")}
        found = []
        for which, said in status.backups(self.status["backup_dir"]).items():
            key, title = named[which]
            state, text = "ok", f"the last was {said['since']} ago" if said else "none yet"
            if said and not said["ok"]:
                state, text = "failed", " ".join(str(said["text"]).split())
            elif said and said["hours"] > oldest[which]:
                state, text = "warning", f"{text}, over {oldest[which]} h"
            playbook = "backup" if which == "last" else "drill"
            do = f"{self.playbook} playbooks/{playbook}.yml"
            found.append(Check(key, title, state, text, do))
        return found

    def disks(self) -> list[Check]:
        """Look how full the disks are, each once, and whether those are mounted that must be."""
        disks = {disk["device"]: disk for disk in map(status.disk, (self.status["data_dir"], "/"))}
        found = []
        for disk in disks.values():
            state, text = "ok", f"{disk['percent']} % full, {disk['free_gb']} GB free"
            limits = {
                "warning": (self.limits["disk_percent"], "status_disk_percent"),
                "failed": (self.settings["full_percent"], "trainer_full_percent"),
            }
            for worse, (limit, variable) in limits.items():
                if disk["percent"] >= limit:
                    state, text = worse, f"{disk['percent']} % full; the limit is {limit} ({variable})"
            do = f"sudo du -xhd2 {disk['path']} | sort -h | tail"
            found.append(Check(f"disk:{disk['path']}", f"disk of {disk['path']}", state, text, do))
        missing = [place for place in self.settings["mount_points"] if not Path(place).is_mount()]
        return [check for check in found if check.key.removeprefix("disk:") not in missing] + [
            Check(f"disk:{place}", f"disk of {place}", "failed", "it is not mounted", f"sudo mount {place}")
            for place in missing
        ]

    def training(self) -> list[Check]:
        """Look how the last training job ended."""
        unit = next((one for one in status.Units({"trainer": ""}).all() if one["name"] == "trainer"), None)
        if unit is None:
            return []
        state, text = "ok", "the last one did not fail"
        if unit["state"] == "failed":
            state, text = "failed", f"{unit['unit']} failed ({unit['result']})"
        return [Check("training", "training", state, text, _journal(unit["unit"]), case=unit["changed"])]

    def schedules(self) -> list[Check]:
        """Look whether our timers run, went off when they should have, and what became of their jobs."""
        timers = _shown(_OF_A_TIMER, [f"{name}.timer" for name in self.settings["timers"]])
        jobs = _shown(_OF_A_JOB, [timer["Unit"] for timer in timers.values() if timer.get("Unit")])
        return [
            schedule(f"{name}.timer", timers.get(f"{name}.timer", {}), jobs)
            for name in self.settings["timers"]
        ]

    def drift(self) -> list[Check]:
        """Ask the app which champions are asked about other rows than those they were trained on."""
        if not self.settings["app"]:
            return []
        said = verify.run_beside(self.settings["app"], "-m", "streamlit_app.drift_report")
        return [
            Check(
                f"drift:{model['name']}",
                f"data for {model['name']}",
                "warning" if model["drifted"] else "ok",
                model["text"],
            )
            for model in json.loads(said)
        ]

    def champions(self) -> dict[str, dict[str, Any]] | None:
        """Ask MLflow for the champions by model; None if it does not answer."""
        try:
            models = status.MLflow(self.status["mlflow_port"]).models()
        except status.NO_ANSWER:
            return None
        return {model["name"]: model for model in models if model["version"]}

    def next(self) -> float | None:
        """Return when the next look is due; None if systemd does not say."""
        # The timer itself knows only once this look has ended. The schedule is in the host's own time zone.
        shown = status.run("env", "-u", "TZ", "systemd-analyze", "calendar", self.settings["schedule"])
        found = re.findall(r"[A-Z][a-z]{2} [0-9-]{10} [0-9:]{8} UTC", shown)
        return _moment(found[-1]) if found else None


def certificate(place: str, context: ssl.SSLContext | None = None) -> Check:
    """Look for how long the certificate of HOST:PORT holds."""
    host, _, port = place.rpartition(":")
    state, context = "ok", context or ssl.create_default_context()
    try:
        with (
            socket.create_connection((host, int(port)), timeout=10) as connection,
            context.wrap_socket(connection, server_hostname=host) as encrypted,
        ):
            ends = ssl.cert_time_to_seconds(str((encrypted.getpeercert() or {})["notAfter"]))
        days = (ends - time.time()) / 86400
        text = f"holds for {days:.0f} more days"
        for worse, limit in _CERTIFICATE_DAYS.items():
            state = worse if days < limit else state
    except ssl.SSLCertVerificationError as error:
        state, text = "failed", f"is not valid: {error.verify_message}"
    except OSError as error:
        state, text = "failed", f"cannot be read: {status.reason(error)}"
    do = f"openssl s_client -connect {place} -servername {host} </dev/null | openssl x509 -noout -text"
    return Check(f"certificate:{place}", f"certificate of {place}", state, text, do)


def schedule(name: str, timer: dict[str, str], jobs: dict[str, dict[str, str]]) -> Check:
    """Judge a timer by what systemd says of it and of its job."""
    job = jobs.get(timer.get("Unit", ""), {})
    due = _moment(timer.get("NextElapseUSecRealtime", ""))
    state, text = "ok", f"next at {timer.get('NextElapseUSecRealtime') or 'an unknown time'}"
    do = f"sudo systemctl status {name}"
    if timer.get("ActiveState") != "active":
        found = timer.get("ActiveState", "not there")
        state, text = "failed", f"expected a timer that is active; got one that is {found}"
    elif job.get("ActiveState") == "failed":
        unit = job["Id"].removesuffix(".service")
        state, text, do = "failed", f"its job {unit} failed ({job['Result']})", _journal(unit)
    elif due and time.time() - due > _LATE_SECONDS and job.get("ActiveState") != "activating":
        state, text = "failed", f"did not start its job at {timer['NextElapseUSecRealtime']}"
    return Check(f"schedule:{name.removesuffix('.timer')}", f"timer {name}", state, text, do)


def _service(unit: str, problems: list[str]) -> Check:
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    state, text = ("failed", problems[0] + more) if problems else ("ok", "runs and answers")
    return Check(f"service:{unit}", unit, state, text, _journal(unit))


def _made(check: Callable[[], str]) -> tuple[str, str]:
    """Make one of the checks of `verify`; return a state and a text."""
    try:
        check()
    except verify.Pending as reason:
        return "ok", str(reason)
    except verify.NoMemory as error:
        return "warning", str(error)
    except Exception as error:  # noqa: BLE001 - one that breaks must not hide the others
        return "failed", " ".join(str(error).split()) or type(error).__name__
    return "ok", "as it should be"


def _shown(properties: str, units: list[str]) -> dict[str, dict[str, str]]:
    """Return what systemd says of units, by name; an inactive one has what it was loaded with."""
    if not units:
        return {}
    blocks = status.run("systemctl", "show", f"--property={properties}", *units).split("\n\n")
    return {block["Id"]: block for text in blocks if (block := status.pairs(text, "="))}


def _moment(text: str) -> float:
    """Return a time of systemctl as seconds since 1970; 0 for none. The unit sets the zone: UTC."""
    try:
        return calendar.timegm(time.strptime(text, "%a %Y-%m-%d %H:%M:%S UTC"))
    except ValueError:
        return 0


def _journal(unit: str) -> str:
    return f"sudo journalctl -n 50 -u {unit}"
