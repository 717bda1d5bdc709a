"""Action plug-in: print text to the terminal verbatim."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

display = Display()


class ActionModule(ActionBase):  # type: ignore[misc]
    """Print the lines of `msg` without the folding and quoting of `debug`."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Print the message.

        Returns:
            What Ansible registers: that nothing changed; in check mode, that `before` would become `after`.
        """
        outcome: dict[str, Any] = super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(
            argument_spec={
                "msg": {"type": "str", "required": True},
                "before": {"type": "dict", "default": {}},
                "after": {"type": "dict", "default": {}},
            }
        )
        for line in arguments["msg"].splitlines():
            display.display(f"  {line}".rstrip())
        before, after = arguments["before"], arguments["after"]
        if not self._task.check_mode or before == after:
            return {**outcome, "changed": False}
        return {**outcome, "changed": True, "diff": {"before": before, "after": after}}
