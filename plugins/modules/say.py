"""Documentation of the action plug-in `say`."""

DOCUMENTATION = r"""
module: say
author: mlstack
short_description: Print text to the terminal verbatim
description:
  - Prints each line without the folding and quoting of M(ansible.builtin.debug), so tables stay readable.
  - Is shown even if C(display_ok_hosts) is off.
options:
  msg:
    description: The text.
    type: str
    required: true
  before:
    description: The current state, by name. In check mode the difference to O(after) is shown.
    type: dict
    default: {}
  after:
    description: The future state, by name.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Show the address
  say:
    msg: MLflow  http://localhost:5000
"""

RETURN = r""" # """
