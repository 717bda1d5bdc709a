"""Documentation of the action plug-in `deployment_lock`."""

DOCUMENTATION = r"""
module: deployment_lock
author: mlstack
short_description: Let only one playbook change the host at a time
description:
  - Takes a lock on the host that names its holder, and keeps it until the playbook ends, in whatever way.
  - The control machine renews it six times in O(seconds), so one that is gone holds it for no longer.
  - After a boot of the host it is free.
  - A play that finds it held by its own playbook goes on. Check mode takes no lock.
  - Needs the callback plug-in P(deployment_record#callback), which is enabled in C(ansible.cfg).
options:
  state:
    description: Whether to take the lock, or to release it before the playbook ends.
    type: str
    choices: [held, released]
    default: held
  take_over:
    description: Take it from another playbook that holds it.
    type: bool
    default: false
  folder:
    description: Folder of the host for the lock, on a disk that is empty after a boot.
    type: str
    default: /run/mlstack
  record:
    description: File of the host to which a line is added for each playbook that has ended.
    type: path
    required: true
  mount_points:
    description: Where a disk must be mounted before a line may be written; until then it is in O(folder).
    type: list
    elements: str
    default: []
  seconds:
    description: For how long the lock holds without being renewed.
    type: int
    default: 120
  shown:
    description: Variables of the command line whose values are recorded; of others only the names.
    type: list
    elements: str
    default: []
  record_begin:
    description: Add a line when the lock is taken, too, for a playbook after which the host may be gone.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Let nobody else deploy meanwhile
  deployment_lock:
    record: /var/lib/mlstack/deployments.jsonl
"""

RETURN = r"""
outcome:
  description: C(taken), C(mine) if it was held already, C(released), or C(lost) if another has it.
  type: str
  returned: always
  sample: taken
run:
  description: The id of this run of ansible-playbook.
  type: str
  returned: if the lock is held
  sample: 0a1b2c3d4e5f
is_recorded:
  description: Whether a line was added already.
  type: bool
  returned: if the lock is taken
  sample: false
holder:
  description: Who holds the lock.
  type: dict
  returned: if another playbook does, as a failure
socket:
  description: Where the process that renews the lock listens for the end.
  type: str
  returned: if the lock is taken
  sample: /tmp/mlstack-deployment.a1b2c3/socket
"""
