"""Action plug-in: start a systemd job and print its journal line by line until it ends."""

from __future__ import annotations

import shlex
import time
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

display = Display()
POLL_SECONDS = 1.0


class ActionModule(ActionBase):  # type: ignore[misc]
    """Start a oneshot unit, print its journal as it is written, and report how it ended."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Follow the unit until it has ended.

        Returns:
            What Ansible registers: `result`, systemd's result of the unit.

        Raises:
            AnsibleActionFail: The unit did not end in time, or a command failed.
        """
        outcome: dict[str, Any] = super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(
            argument_spec={
                "unit": {"type": "str", "required": True},
                "timeout": {"type": "int", "default": 3600},
            }
        )
        if self._task.check_mode:
            return {**outcome, "skipped": True, "msg": f"Check mode: {arguments['unit']} would be started."}
        unit = shlex.quote(arguments["unit"])
        # The job's own lines are identified by its name without the instance; systemd's about it are not.
        journal = f"journalctl --output=cat --show-cursor --unit={unit} --identifier={unit.partition('@')[0]}"
        cursor = self._cursor(self._command("journalctl --lines=1 --quiet --show-cursor"))
        self._command(f"systemctl start --no-block {unit}")
        deadline = time.monotonic() + arguments["timeout"]
        state = "activating"
        while state in {"activating", "active", "deactivating"}:
            if time.monotonic() > deadline:
                raise AnsibleActionFail(
                    f"Expected {arguments['unit']} to end within {arguments['timeout']} s; it still runs. "
                    f"To follow it, type on the host: journalctl -fu {arguments['unit']}"
                )
            time.sleep(POLL_SECONDS)
            state = self._property(unit, "ActiveState")
            after = f"--after-cursor={shlex.quote(cursor)}" if cursor else ""
            cursor = self._show(f"{journal} {after}") or cursor
        result = self._property(unit, "Result")
        outcome.update(changed=True, result=result)
        if result != "success":
            again = f"To see them again, type on the host: journalctl -u {arguments['unit']}"
            message = f"{arguments['unit']} failed ({result}). Its lines are above. {again}"
            outcome.update(failed=True, msg=message)
        return outcome

    def _command(self, command: str) -> str:
        """Run a command on the host and return its output."""
        answer = self._low_level_execute_command(command)
        if answer["rc"] != 0:
            raise AnsibleActionFail(f"`{command}` failed: {answer['stderr'] or answer['stdout']}")
        return str(answer["stdout"])

    def _property(self, unit: str, name: str) -> str:
        """Return one property of the unit, such as its state."""
        return self._command(f"systemctl show --property={name} --value {unit}").strip()

    def _show(self, command: str) -> str:
        """Print the journal's new lines.

        Returns:
            The journal's position after them; empty if it has no entry yet.
        """
        # Some versions of journalctl fail if there is no new line.
        printed = self._command(f"{command} || true")
        for line in printed.splitlines():
            if not line.startswith(("-- cursor: ", "-- No entries")):
                display.display(f"  {line}")
        return self._cursor(printed)

    @staticmethod
    def _cursor(printed: str) -> str:
        """Return the position that journalctl printed, empty if it printed none."""
        found = [line for line in printed.splitlines() if line.startswith("-- cursor: ")]
        return found[-1].removeprefix("-- cursor: ") if found else ""
