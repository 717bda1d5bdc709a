"""Action plug-in: hold the host's lock of deployments until the playbook ends."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import shlex
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from ansible import context
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

display = Display()
# One for each run of ansible-playbook, whose workers are its children.
RUN = "MLSTACK_DEPLOYMENT_RUN"
CALLBACK_SECONDS = 60.0


class ActionModule(ActionBase):  # type: ignore[misc]
    """Take the lock, or release it before the playbook ends.

    While the playbook runs a process of its own renews the lock, because a task can take long. It hears of
    the end from the callback plug-in `deployment_record`, over a socket that closes in any case.
    """

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Take or release the lock.

        Returns:
            What Ansible registers: `outcome`; if the lock is taken now, in `socket` where to say how it ends.

        Raises:
            AnsibleActionFail: Somebody else deploys, or the host does not answer.
        """
        outcome: dict[str, Any] = super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(
            argument_spec={
                "state": {"type": "str", "choices": ["held", "released"], "default": "held"},
                "take_over": {"type": "bool", "default": False},
                "folder": {"type": "str", "default": "/run/mlstack"},
                "record": {"type": "path", "required": True},
                "mount_points": {"type": "list", "elements": "str", "default": []},
                "seconds": {"type": "int", "default": 120},
                "shown": {"type": "list", "elements": "str", "default": []},
                "record_begin": {"type": "bool", "default": False},
            }
        )
        if self._task.check_mode:
            return {**outcome, "changed": False, "outcome": "not needed"}
        self.script = Path(self._find_needle("files", "on_host.py")).read_text()
        self.files = {name: arguments[name] for name in ("record", "mount_points", "seconds")} | {
            "state": f"{arguments['folder']}/deployment.json"
        }
        run = os.environ.get(RUN, "")
        if not run:
            raise AnsibleActionFail(
                "Expected the callback plug-in deployment_record, which releases the lock of deployments; "
                "got none. Add it to callbacks_enabled of ansible.cfg (or ANSIBLE_CALLBACKS_ENABLED)."
            )
        if arguments["state"] == "released":
            return {**outcome, "changed": False, **self._ask(do="release", run=run)}
        holder = {"run": run, **self._who(), "variables": self._variables(arguments["shown"])}
        how = {name: arguments[name] for name in ("take_over", "record_begin")}
        answer = self._ask(do="take", holder=holder, **how)
        if answer["outcome"] == "held":
            raise AnsibleActionFail(refusal(answer["holder"]), result={"holder": answer["holder"]})
        if answer["outcome"] == "taken":
            outcome["socket"] = self._renew_from_now_on(run)
            outcome["is_recorded"] = answer["is_recorded"]
        return {**outcome, "changed": False, "outcome": answer["outcome"], "run": run}

    def _who(self) -> dict[str, str]:
        """Say who runs which playbook, from which commit."""
        playbook = Path(context.CLIARGS["args"][0]).resolve()
        folder = Path(self._loader.get_basedir()).resolve()
        git = ["git", "-C", str(folder)]
        top = _output([*git, "rev-parse", "--show-toplevel"]) or str(folder)
        return {
            "who": f"{getpass.getuser()}@{socket.gethostname()}",
            "playbook": str(playbook.relative_to(top)) if playbook.is_relative_to(top) else playbook.name,
            "commit": _output([*git, "describe", "--always", "--dirty", "--match="]),
        }

    def _variables(self, shown: list[str]) -> dict[str, str]:
        """Return the variables of the command line; of those that may be secret, only the names."""
        given = self._task.get_variable_manager().extra_vars
        return {name: str(value) if name in shown else "(not shown)" for name, value in given.items()}

    def _ask(self, **asked: Any) -> dict[str, Any]:  # noqa: ANN401 (what it asks is JSON)
        """Run the script on the host."""
        # Through standard input, because sudo writes each command to the journal.
        words = ["python3", "-", json.dumps(asked | self.files)]
        answer = self._low_level_execute_command(shlex.join(words), in_data=self.script.encode())
        if answer["rc"] != 0:
            said = (answer["stderr"] or answer["stdout"]).strip().splitlines()
            raise AnsibleActionFail(
                f"Expected the lock of deployments in {self.files['state']} on the host; got: "
                f"{said[-1] if said else answer['rc']}"
            )
        return dict(json.loads(answer["stdout"].strip().splitlines()[-1]))

    def _renew_from_now_on(self, run: str) -> str:
        """Start the process that renews the lock, and return the path of its socket."""
        path = str(Path(tempfile.mkdtemp(prefix="mlstack-deployment.")) / "socket")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(1)
        if os.fork() == 0:
            try:
                os.setsid()  # so that Ctrl-C, which ends the playbook, does not end this one
                display._final_q = None  # nobody will read what it says
                self._renew(run, listener)
            finally:
                os._exit(0)
        listener.close()
        return path

    def _renew(self, run: str, listener: socket.socket) -> None:
        """Renew the lock until the playbook has ended, then record how."""
        place = Path(listener.getsockname())
        listener.settimeout(CALLBACK_SECONDS)
        try:
            playbook, _ = listener.accept()
        except TimeoutError:
            return
        finally:
            place.unlink()
            place.parent.rmdir()
        playbook.settimeout(self.files["seconds"] / 6)
        said = b""
        while not said.endswith(b"\n"):
            try:
                part = playbook.recv(65536)
            except TimeoutError:
                # A host that does not answer now may do so the next time.
                with contextlib.suppress(Exception):
                    self._ask(do="renew", run=run)
                continue
            if not part:
                said = b'{"outcome": "interrupted"}\n'
            said += part
        self._ask(do="end", run=run, result=json.loads(said))
        with contextlib.suppress(OSError):
            playbook.sendall(b"recorded\n")


def _output(command: list[str]) -> str:
    """Return a command's output, or nothing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except OSError:
        return ""
    return done.stdout.strip()


def refusal(holder: dict[str, Any]) -> str:
    """Say who holds the lock, and what to do."""
    return (
        f"Expected no other deployment; got {holder['playbook']} by {holder['who']}, "
        f"since {holder['started']}, last heard of {holder['silent']} s ago. Wait until it has ended, "
        "or for two minutes if it is dead; if you know better, add -e take_over=true."
    )
