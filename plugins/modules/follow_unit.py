"""Documentation of the action plug-in `follow_unit`."""

DOCUMENTATION = r"""
module: follow_unit
author: mlstack
short_description: Run a systemd job and print its journal as it is written
description:
  - Starts a oneshot unit, prints each line it writes to the journal, and ends when the unit ends.
  - Fails if the unit fails.
options:
  unit:
    description: Name of the unit, such as C(trainer@manual.service).
    type: str
    required: true
  timeout:
    description: Seconds until the task fails. The unit itself keeps running.
    type: int
    default: 3600
"""

EXAMPLES = r"""
- name: Train
  follow_unit:
    unit: trainer@manual.service
"""

RETURN = r"""
result:
  description: The unit's result as reported by systemd.
  type: str
  returned: always
  sample: success
"""
