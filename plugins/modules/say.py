"""Documentation of the action plug-in `say`."""

DOCUMENTATION = r"""
module: say
author: mlstack
short_description: Print text to the person at the terminal, as it is
description:
  - Prints each line without the folding and quoting of M(ansible.builtin.debug), so tables stay tables.
  - Shows up although C(display_ok_hosts) is off.
options:
  msg:
    description: The text.
    type: str
    required: true
  before:
    description: What there is now, by name. A preview in check mode shows the difference to O(after).
    type: dict
    default: {}
  after:
    description: What will be there.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Tell where it is
  say:
    msg: MLflow  http://localhost:5000
"""

RETURN = r""" # """
