"""Callback plug-in: say at the end of a playbook what it changed and how it ended, for the record."""

from __future__ import annotations

import json
import os
import socket
import uuid
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: deployment_record
type: notification
short_description: Ends what M(deployment_lock) begins
description:
  - Tells the process that renews the lock of deployments what the playbook changed and how it ended.
  - That process records it on the host, and releases the lock.
requirements:
  - Enabled in C(callbacks_enabled).
"""

# As the action plug-in `deployment_lock` has it.
RUN = "MLSTACK_DEPLOYMENT_RUN"
SECONDS = 60.0
GONE_SECONDS = 10.0  # for a host that may be gone, and of which the record has a line


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Count what changed, from the moment that the lock is taken."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "deployment_record"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        os.environ[RUN] = uuid.uuid4().hex[:12]
        self.lock: socket.socket | None = None
        self.is_recorded = False
        self.changed: dict[str, list[str]] = {}
        self.failed = ""

    def v2_runner_on_ok(self, result: Any) -> None:  # noqa: ANN401 (Ansible's)
        """Note a change, or the lock."""
        found, task = result.result, result.task
        if "socket" in found and task.action == "deployment_lock":
            self.is_recorded = found["is_recorded"]
            self.lock = socket.socket(socket.AF_UNIX)
            self.lock.settimeout(GONE_SECONDS if self.is_recorded else SECONDS)
            self.lock.connect(found["socket"])
        if found.get("changed"):
            names = self.changed.setdefault(task._role.get_name() if task._role else "", [])
            if task.name not in names:
                names.append(task.name)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:  # noqa: ANN401
        """Note what failed; its message may have a secret."""
        if not ignore_errors:
            self.failed = result.task.get_name()

    def v2_runner_on_unreachable(self, result: Any) -> None:  # noqa: ANN401 (Ansible's)
        """Note that the host is gone."""
        self.failed = result.task.get_name()

    def v2_playbook_on_stats(self, stats: Any) -> None:  # noqa: ANN401 (Ansible's)
        """Hand over the result, and wait until it is recorded."""
        if not self.lock:
            return
        failed = any(stats.failures.values()) or any(stats.dark.values())
        result = {
            "outcome": "failed" if failed else "ok",
            "changed": self.changed,
            "failed": self.failed if failed else "",
        }
        try:
            self.lock.sendall(json.dumps(result).encode() + b"\n")
            recorded = self.lock.recv(64)
        except OSError:
            recorded = b""
        if not recorded and not self.is_recorded:
            self._display.warning(
                "This run could not be recorded on the host, whose lock of deployments lapses within minutes."
            )
