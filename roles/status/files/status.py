"""Look at the host for `status` and print the findings as JSON. Needs only Python's standard library.

The first argument is a JSON object with the settings. Nothing is changed, and nothing fails because something
is broken: what cannot be read is empty or says why. A worker is given only the image of its unit, and only
its units are looked at.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

MLFLOW_SECONDS = 4
HEALTH_GRACE_SECONDS = 600  # for a look to begin, and to write what it finds
# Not ExecStart: MLflow's has empty lines, which separate the units.
SHOWN = "Id,LoadState,ActiveState,Result,NRestarts,StateChangeTimestampMonotonic,FragmentPath"
# What a service that is broken, or is something else, makes of a call.
NO_ANSWER = (OSError, http.client.HTTPException, ValueError, LookupError, TypeError, AttributeError)
OF_A_TRAINING = "tags.`mlstack.training` LIKE '{}'"


def run(*command: str) -> str:
    """Run a command and return its output, even if it failed; nothing if it cannot run or hangs."""
    words = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, errors="replace", timeout=8, check=False, env=words
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout


def read(path: str | Path) -> str:
    """Return a file's text, or nothing."""
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def loaded(text: str) -> Any:  # noqa: ANN401 (JSON is of any type)
    """Parse JSON; None if it is invalid."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def pairs(text: str, sign: str) -> dict[str, str]:
    """Parse lines of a name, a sign and a value."""
    split = (line.partition(sign) for line in text.splitlines() if sign in line)
    return {name.strip(): value.strip() for name, _, value in split}


def span(seconds: float) -> str:
    """Format a duration in a suitable unit."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def since(milliseconds: float) -> str:
    """Say how long ago one of MLflow's timestamps was."""
    return span(time.time() - milliseconds / 1000)


class Units:
    """What systemd and Docker know about our units.

    Args:
        images: For each unit, without its instance, the name of its image.
    """

    def __init__(self, images: dict[str, str]) -> None:
        self.images = images
        self.containers: dict[str, dict[str, Any]] = {}

    def all(self) -> list[dict[str, Any]]:
        """Describe each unit; of the trainer's instances only the one that changed last."""
        names = ["docker.service", *(f"{name}.service" for name in self.images if name != "trainer")]
        shown = run("systemctl", "show", f"--property={SHOWN}", *names, "trainer@manual.service", "trainer@*")
        blocks = [pairs(block, "=") for block in shown.split("\n\n") if block.strip()]
        blocks.sort(key=lambda block: int(block.get("StateChangeTimestampMonotonic") or 0))
        last = {block["Id"].split("@")[0].removesuffix(".service"): block for block in blocks}
        containers = [container_of(block["Id"]) for block in last.values()]
        found = loaded(run("docker", "inspect", "--type", "container", *containers)) or []
        self.containers = {one["Name"].lstrip("/"): one for one in found}
        return [self.unit(name, last[name]) for name in ("docker", *self.images) if name in last]

    def unit(self, name: str, block: dict[str, str]) -> dict[str, Any]:
        """Describe one unit."""
        changed = int(block["StateChangeTimestampMonotonic"] or 0) / 1e6
        container = self.containers.get(container_of(block["Id"]), {})
        file = read(block.get("FragmentPath", ""))
        planned = re.search(rf"\S*{self.images.get(name)}:[0-9a-f]{{12}}\b", file)
        return {
            "name": name,
            "unit": block["Id"].removesuffix(".service"),
            "state": "not installed" if block["LoadState"] == "not-found" else block["ActiveState"],
            "result": block["Result"],
            "changed": block["StateChangeTimestampMonotonic"],
            "since": span(time.monotonic() - changed) if changed else "",
            "restarts": int(block.get("NRestarts") or 0),
            "image": container.get("Config", {}).get("Image") or (planned[0] if planned else ""),
            "memory_mib": memory_in_use(container["Name"].lstrip("/")) >> 20 if container else 0,
            "limit_mib": container.get("HostConfig", {}).get("Memory", 0) >> 20,
        }


def container_of(unit: str) -> str:
    """Name the container of a unit; that of a job is named after its instance."""
    return unit.removesuffix(".service").replace("@", "-")


def next_training() -> str:
    """Return when the timer fires next; nothing if there is none."""
    shown = run("systemctl", "show", "--property=NextElapseUSecRealtime", "--value", "trainer.timer")
    return shown.strip()


def memory_in_use(container: str) -> int:
    """Return the bytes a container uses, as counted by `docker stats`, which itself takes two seconds."""
    address = f"http://docker/containers/{container}/stats?stream=false&one-shot=true"
    found = loaded(run("curl", "--silent", "--unix-socket", "/run/docker.sock", address)) or {}
    memory = found.get("memory_stats") or {}
    parts = memory.get("stats") or {}
    # The reclaimable file cache: of control groups version 1, or 2.
    cache = parts.get("total_inactive_file", parts.get("inactive_file", 0))
    return max(int(memory.get("usage", 0)) - int(cache), 0)


def connected(port: int) -> dict[str, Any]:
    """Count the processes connected to the Dask scheduler, by the name of their host.

    Args:
        port: The scheduler's HTTP port on this host; 0 if there is no scheduler.

    Returns:
        The `processes`, and in `problem` why they cannot be counted.
    """
    found: dict[str, Any] = {"processes": {}, "problem": ""}
    if not port:
        return found
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/identity.json", timeout=4) as answer:
            workers = json.load(answer)["workers"].values()
        found["processes"] = Counter(str(worker["name"]).split()[0] for worker in workers)
    except NO_ANSWER as error:
        found["problem"] = reason(error)
    return found


class MLflow:
    """What MLflow knows about models and trainings.

    Args:
        port: Its port on this host.
    """

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, path: str, **body: object) -> dict[str, Any]:
        """Call the REST API: a POST if there is a body."""
        url = f"{self.url}/api/2.0/mlflow/{path}"
        data = json.dumps(body).encode() if body else None
        message = urllib.request.Request(url, data, {"Content-Type": "application/json"})  # noqa: S310
        with urllib.request.urlopen(message, timeout=MLFLOW_SECONDS) as answer:  # noqa: S310
            return dict(json.load(answer))

    def all(self) -> dict[str, Any]:
        """Describe the server, its models and the last training; `problem` says why that failed."""
        found: dict[str, Any] = {"version": "", "models": [], "training": {}, "problem": ""}
        try:
            with urllib.request.urlopen(f"{self.url}/version", timeout=MLFLOW_SECONDS) as answer:  # noqa: S310
                found["version"] = answer.read().decode().strip()
            found["models"] = self.models()
            found["training"] = self.training()
        except NO_ANSWER as error:
            found["problem"] = reason(error)
        return found

    def models(self) -> list[dict[str, Any]]:
        """Describe each registered model and its champion."""
        registered = self.ask("registered-models/search?max_results=100").get("registered_models", [])
        return [self.model(model) for model in registered]

    def experiments(self) -> dict[str, str]:
        """Return the names of all experiments by id, those that were deleted marked."""
        found = self.ask("experiments/search", max_results=50000, view_type="ALL").get("experiments", [])
        return {
            one[
                "experiment_id"
            ]: f"{one['name']}{' (deleted)' if one['lifecycle_stage'] == 'deleted' else ''}"
            for one in found
        }

    def model(self, model: dict[str, Any]) -> dict[str, Any]:
        """Describe a registered model and its champion."""
        aliases = {alias["alias"]: alias["version"] for alias in model.get("aliases", [])}
        found = {"name": model["name"], "challenger": aliases.get("challenger", "")}
        if "champion" not in aliases:
            return found | {"version": ""}
        query = urllib.parse.urlencode({"name": model["name"], "version": aliases["champion"]})
        version = self.ask(f"model-versions/get?{query}")["model_version"]
        tags = {tag["key"]: tag["value"] for tag in version.get("tags", [])}
        return found | {
            "version": aliases["champion"],
            "model": tags.get("model", ""),
            "metric": tags.get("metric", "").removeprefix("neg_"),
            "score": f"{float(tags['cv_score']):.4g}" if "cv_score" in tags else "",
            "since": since(version["creation_timestamp"]),
            "run": version.get("run_id", "")[:8],
        }

    def training(self) -> dict[str, Any]:
        """Describe the last training: all runs that carry its name."""
        experiments = self.ask("experiments/search", max_results=1000).get("experiments", [])
        ids = [experiment["experiment_id"] for experiment in experiments]
        newest = self.runs(ids, "%", 1)
        if not newest:
            return {}
        runs = self.runs(ids, tags_of(newest[0])["mlstack.training"], 1000)
        started = min(run["info"]["start_time"] for run in runs)
        ended = max(run["info"].get("end_time", 0) for run in runs)
        models = [
            run for run in runs if "mlstack.model" in tags_of(run)
        ]  # not the runs that they are children of
        return {
            "since": since(started),
            "seconds": round((ended - started) / 1000) if ended else 0,
            "problems": sorted({tags_of(run).get("mlstack.problem", "?") for run in runs}),
            "models": sorted({tags_of(run)["mlstack.model"] for run in models}),
            "runs": len(models),
            "ended": dict(Counter(run["info"]["status"].lower() for run in models)),
        }

    def runs(self, experiments: list[str], training: str, most: int) -> list[dict[str, Any]]:
        """Return the runs of trainings whose name matches the pattern, newest first."""
        found = self.ask(
            "runs/search",
            experiment_ids=experiments,
            filter=OF_A_TRAINING.format(training),
            order_by=["attributes.start_time DESC"],
            max_results=most,
        )
        return list(found.get("runs", []))


def reason(error: Exception) -> str:
    """Say in a few words why a call failed."""
    said = getattr(error, "reason", None) or error
    return getattr(said, "strerror", None) or str(said) or type(said).__name__


def tags_of(run: dict[str, Any]) -> dict[str, str]:
    """Return a run's tags by name."""
    return {tag["key"]: tag["value"] for tag in run["data"].get("tags", [])}


def disk(path: str) -> dict[str, Any]:
    """Describe the disk that a path is on, or will be on."""
    place = Path(path)
    while not place.exists():
        place = place.parent
    of = os.statvfs(place)
    used, free = (of.f_blocks - of.f_bfree) * of.f_frsize, of.f_bavail * of.f_frsize
    return {
        "path": path,
        "device": place.stat().st_dev,
        "used_gb": round(used / 1e9, 1),
        "free_gb": round(free / 1e9, 1),
        "percent": round(100 * used / (used + free)) if used + free else 0,
    }


def memory() -> dict[str, float]:
    """Return the host's memory in GiB."""
    kib = {name: int(value.split()[0]) for name, value in pairs(read("/proc/meminfo"), ":").items()}
    total, free = kib.get("MemTotal", 0), kib.get("MemAvailable", 0)
    return {"total_gib": round(total / 2**20, 1), "free_gib": round(free / 2**20, 1)}


def replica(port: int) -> dict[str, Any]:
    """Ask the replication how far behind the replica is; nothing if there is none (port 0)."""
    if not port:
        return {}
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=MLFLOW_SECONDS) as answer:
            said = json.load(answer)
        behind, generation = round(said.get("behind", 0)), said.get("generation", "")
    except NO_ANSWER as error:
        return {"problem": str(error) or reason(error)}
    return {"problem": "", "behind": behind, "generation": generation}


def deployment(record: str) -> dict[str, Any]:
    """Return the last line of the record of deployments; nothing if there is none."""
    lines = read(record).splitlines()
    return loaded(lines[-1]) or {} if lines else {}


def backups(folder: str) -> dict[str, Any]:
    """Return how the last backup and the last drill went; nothing if there are none to be (an empty folder).

    Args:
        folder: Where the backups leave it.
    """
    if not folder:
        return {}
    found = {name: loaded(read(Path(folder, f"{name}.json"))) or {} for name in ("last", "drill")}
    for said in found.values():
        if said:
            said["hours"] = round((time.time() - said["time"]) / 3600, 1)
            said["since"] = span(time.time() - said["time"])
    return found


def health(folder: str) -> dict[str, Any]:
    """Return what the role `health` found at its last look; nothing if it is off (an empty folder).

    Args:
        folder: Where it leaves it.
    """
    if not folder:
        return {}
    said = loaded(read(Path(folder, "state.json")))
    if not said:
        # The first look is due when the timer has been set up.
        timer = Path("/etc/systemd/system/mlstack-health.timer")
        due = timer.stat().st_mtime if timer.exists() else 0
        return {"checks": [], "late": time.time() - due > HEALTH_GRACE_SECONDS}
    bad = [check for check in said["checks"] if check["state"] != "ok"]
    return {
        "checks": bad,
        "looked_at": len(said["checks"]),
        "since": span(time.time() - said["time"]),
        "late": time.time() - (said.get("next") or time.time()) > HEALTH_GRACE_SECONDS,
    }


def usage(file: str, budget: dict[str, float], names: Callable[[], dict[str, str]]) -> dict[str, Any]:
    """Return the sizes of the artifacts, by experiment; nothing if nobody measures them (no file is named).

    Args:
        file: What the last measurement has left.
        budget: How many GB an experiment, by its name, or `all` of them may take.
        names: Asks for the experiments' names by id.
    """
    if not file:
        return {}
    said = loaded(read(file))
    if not said:
        return {"since": ""}
    try:
        known, problem = names(), ""
    except NO_ANSWER as error:
        known, problem = {}, reason(error)
    sizes: Counter[str] = Counter()
    for one, size in said["bytes"].items():
        sizes[known.get(one, f"experiment {one}") if one else "in no experiment"] += size
    taken = sizes | {"all": sizes.total()}
    return {
        "since": span(time.time() - said["time"]),
        "gb": round(sizes.total() / 1e9, 2),
        "experiments": len(sizes),
        "largest": [{"name": name, "gb": round(size / 1e9, 2)} for name, size in sizes.most_common(5)],
        "over": [
            {"name": name, "gb": round(taken[name] / 1e9, 2), "budget": gb}
            for name, gb in budget.items()
            if taken.get(name, 0) > gb * 1e9
        ],
        # Without MLflow's answer no name is known.
        "unknown": [] if problem else sorted(set(budget) - {*known.values(), "all"}),
    }


def updates() -> dict[str, Any]:
    """Count pending security updates, by the host's package lists, and say whether a reboot is required."""
    lists = any(Path("/var/lib/apt/lists").glob("*_InRelease"))
    planned = run("apt-get", "--simulate", "--quiet", "dist-upgrade") if lists else ""
    return {"security": security_updates(planned), "reboot": Path("/run/reboot-required").exists()}


def security_updates(simulated: str) -> int | None:
    """Count the packages from a security archive in apt-get's simulation; None if it did not finish."""
    if " upgraded, " not in simulated:
        return None
    return len(re.findall(r"^Inst .*-security", simulated, flags=re.MULTILINE | re.IGNORECASE))


def versions() -> dict[str, str]:
    """Return the versions of what runs below the containers, and the uptime."""
    system = pairs(read("/etc/os-release"), "=")
    name = system.get("PRETTY_NAME", "").strip('"')
    engine = loaded(run("docker", "version", "--format", "{{json .Server}}")) or {}
    return {
        "docker": engine.get("Version", ""),
        "system": f"Debian {read('/etc/debian_version').strip()}" if system.get("ID") == "debian" else name,
        "kernel": os.uname().release,
        "up": span(float((read("/proc/uptime") or "0").split()[0])),
    }


def main() -> None:
    """Print the findings."""
    settings = json.loads(sys.argv[1])
    looks: dict[str, Callable[[], Any]] = {"units": lambda: Units(settings["images"]).all()}
    if "mlflow_port" in settings:
        looks |= {
            "workers": lambda: connected(settings["dask_http_port"]),
            "mlflow": MLflow(settings["mlflow_port"]).all,
            "next_training": next_training,
            "disks": lambda: [disk("/"), disk(settings["data_dir"])],
            "memory": memory,
            "replica": lambda: replica(settings["replication_port"]),
            "deployment": lambda: deployment(settings["record"]),
            "usage": lambda: usage(
                settings["usage_file"], settings["budget_gb"], MLflow(settings["mlflow_port"]).experiments
            ),
            "backups": lambda: backups(settings["backup_dir"]),
            "health": lambda: health(settings["health_dir"]),
            "updates": updates,
            "versions": versions,
        }
    with ThreadPoolExecutor() as pool:
        found = {name: pool.submit(look) for name, look in looks.items()}
    now = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    print(json.dumps({"time": now} | {name: look.result() for name, look in found.items()}))


if __name__ == "__main__":
    main()
