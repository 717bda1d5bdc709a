"""What breaks under the clients of the sandbox: single faults by name, each done when it is over."""

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator

HOST = "mlstack-sandbox"
STORE = f"{HOST}-aws"
_CLOCK = "/root/mlstack-clock"
_CLOCKED = ("mlflow", "streamlit", "scoring", "replication")
_MLFLOW_DATA = "/var/lib/mlstack/mlflow"

# Runs beside the emulator, in its network: whoever connects gets 500, and who was connected is cut off.
_ANSWER_500 = """
iptables -t nat -A PREROUTING -p tcp --dport 5555 -j REDIRECT --to-port 5599
iptables -A INPUT -p tcp --dport 5555 -j REJECT --reject-with tcp-reset
exec python3 -c '
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Failing(BaseHTTPRequestHandler):
    def fail(self):
        self.send_error(500)
    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = fail
ThreadingHTTPServer(("", 5599), Failing).serve_forever()
'
"""
_ANSWER_AGAIN = """
iptables -t nat -D PREROUTING -p tcp --dport 5555 -j REDIRECT --to-port 5599
iptables -D INPUT -p tcp --dport 5555 -j REJECT --reject-with tcp-reset
"""


def docker(*arguments: str) -> str:
    """Run a command of Docker; return what it prints."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def on_host(script: str) -> str:
    """Run a shell script on the host; return what it prints."""
    return docker("exec", HOST, "sh", "-ec", script)


def _kill_process_of(container: str) -> None:
    on_host(f"kill -9 $(docker inspect --format '{{{{.State.Pid}}}}' {container})")


def _kill_client_of(container: str) -> None:
    on_host(f"systemctl kill --kill-whom=main --signal=KILL {container}")


def _lose_power() -> None:
    docker("kill", HOST)
    docker("start", HOST)


def _restart_the_host() -> None:
    docker("restart", "--time", "60", HOST)


def _take_the_store_away(seconds: float = 5) -> None:
    docker("pause", STORE)
    time.sleep(seconds)
    docker("unpause", STORE)


def _slow_the_store_down() -> None:
    for _ in range(5):
        _take_the_store_away(2)
        time.sleep(0.2)


def _let_the_store_fail(seconds: float = 5) -> None:
    beside = ["--network", f"container:{STORE}", "--cap-add", "NET_ADMIN", "--entrypoint", "sh"]
    image = docker("inspect", "--format", "{{.Config.Image}}", HOST)
    failing = docker("run", "--detach", "--rm", *beside, image, "-ec", _ANSWER_500)
    try:
        time.sleep(seconds)
    finally:
        docker("run", "--rm", *beside, image, "-ec", _ANSWER_AGAIN)
        docker("kill", failing)


def _step_the_clock(days: int, seconds: float = 5) -> None:
    """Set the clock of all services ahead, and back again; without `clocks` no clock moves."""
    on_host(f"echo +{days}d >{_CLOCK}/offset")
    try:
        time.sleep(seconds)
    finally:
        on_host(f"echo +0 >{_CLOCK}/offset")


FAULTS: dict[str, Callable[[], object]] = {
    "mlflow's process": lambda: _kill_process_of("mlflow"),
    "mlflow's client": lambda: _kill_client_of("mlflow"),
    "the app's process": lambda: _kill_process_of("streamlit"),
    "the REST service's client": lambda: _kill_client_of("scoring"),
    "replication's process": lambda: _kill_process_of("replication"),
    "the engine": lambda: on_host("systemctl kill --signal=KILL docker"),
    "the engine, restarted": lambda: on_host("systemctl restart docker"),
    "containerd, then the app": lambda: on_host(
        "app=$(docker inspect --format '{{.State.Pid}}' streamlit)\n"
        "systemctl kill --signal=KILL containerd; kill -9 $app"
    ),
    "the store away": _take_the_store_away,
    "the store slow": _slow_the_store_down,
    "the store failing": _let_the_store_fail,
    "the clock a day ahead": lambda: _step_the_clock(1),
    "the clock a month ahead": lambda: _step_the_clock(31),
    "the host, restarted": _restart_the_host,
    "power": _lose_power,
}


@contextlib.contextmanager
def clocks() -> Iterator[None]:
    """Give each service a clock of its own that can be set (by libfaketime), while the block runs.

    The kernel's clock is everybody's, so it stays as it is; and so does the clock that measures spans.
    """
    on_host("apt-get install --yes --quiet libfaketime >/dev/null")
    library = on_host("ls /usr/lib/*/faketime/libfaketime.so.1")
    more = (
        f"--volume {library}:/faketime.so:ro --volume {_CLOCK}:/clock:ro --env LD_PRELOAD=/faketime.so "
        "--env FAKETIME_TIMESTAMP_FILE=/clock/offset --env FAKETIME_CACHE_DURATION=1 "
        "--env FAKETIME_DONT_FAKE_MONOTONIC=1"
    )
    on_host(f"mkdir -p {_CLOCK}; echo +0 >{_CLOCK}/offset")
    units = " ".join(f"{name}.service" for name in _CLOCKED)
    on_host(
        f"cd /etc/systemd/system; for unit in {units}; do mkdir -p $unit.d\n"
        "{ echo [Service]; echo ExecStart=\n"
        f"sed -n '/^ExecStart=/,/[^\\\\]$/p' $unit | sed 's|docker run |docker run {more} |'\n"
        f"}} >$unit.d/clock.conf; done; systemctl daemon-reload; systemctl restart --no-block {units}"
    )
    try:
        yield
    finally:
        on_host(
            f"cd /etc/systemd/system; for unit in {units}; do rm -rf $unit.d; done\n"
            f"systemctl daemon-reload; systemctl restart --no-block {units}"
        )


@contextlib.contextmanager
def small_disk(mib: int) -> Iterator[Callable[[bool], None]]:
    """Move MLflow's data to a disk of so many MiB while the block runs; yield what fills it and frees it."""
    on_host(
        "systemctl stop mlflow replication\n"
        f"cp -a {_MLFLOW_DATA} {_MLFLOW_DATA}.large; mount -t tmpfs -o size={mib}m tmpfs {_MLFLOW_DATA}\n"
        f"cp -a {_MLFLOW_DATA}.large/. {_MLFLOW_DATA}; systemctl start replication mlflow"
    )

    def fill(full: bool) -> None:
        on_host(
            f"dd if=/dev/zero of={_MLFLOW_DATA}/full bs=64k 2>/dev/null || true"
            if full
            else f"rm {_MLFLOW_DATA}/full"
        )

    try:
        yield fill
    finally:
        on_host(
            "systemctl stop mlflow replication\n"
            f"rm -f {_MLFLOW_DATA}/full; cp -a {_MLFLOW_DATA}/. {_MLFLOW_DATA}.large; umount {_MLFLOW_DATA}\n"
            f"rm -rf {_MLFLOW_DATA}/* {_MLFLOW_DATA}/.[!.]*; cp -a {_MLFLOW_DATA}.large/. {_MLFLOW_DATA}\n"
            f"rm -rf {_MLFLOW_DATA}.large; systemctl start replication mlflow"
        )
