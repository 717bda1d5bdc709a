"""Ansible module: one operation of the AWS API."""

from __future__ import annotations

import json
from typing import Any

import boto3
from ansible.module_utils.basic import AnsibleModule
from botocore.exceptions import BotoCoreError, ClientError

DOCUMENTATION = r"""
module: aws_api
author: mlstack
short_description: One operation of the AWS API
description:
  - For the few operations that amazon.aws and community.aws have no module for.
  - Credentials, profile and endpoint come from boto3's environment variables.
  - Reports changed, and is skipped in check mode, unless the operation begins with get, list or describe.
options:
  region:
    description: AWS region.
    type: str
    required: true
  service:
    description: Service, as named by boto3.
    type: str
    required: true
  operation:
    description: Operation, as named by boto3.
    type: str
    required: true
  arguments:
    description: Its arguments.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Tag a repository
  aws_api:
    region: eu-central-1
    service: ecr
    operation: tag_resource
    arguments:
      resourceArn: arn:aws:ecr:eu-central-1:123456789012:repository/mlstack/mlflow
      tags: [{Key: Project, Value: mlstack}]
"""

RETURN = r"""
answer:
  description: AWS's response.
  returned: unless skipped in check mode
  type: dict
"""


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "region": {"type": "str", "required": True},
            "service": {"type": "str", "required": True},
            "operation": {"type": "str", "required": True},
            "arguments": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    asked: dict[str, Any] = module.params
    reads = asked["operation"].startswith(("get_", "list_", "describe_"))
    if module.check_mode and not reads:
        module.exit_json(changed=True)
    try:
        client = boto3.session.Session(region_name=asked["region"]).client(asked["service"])
        answer = getattr(client, asked["operation"])(**asked["arguments"])
    except (BotoCoreError, ClientError) as error:
        module.fail_json(msg=str(error))
    answer.pop("ResponseMetadata", None)
    module.exit_json(changed=not reads, answer=json.loads(json.dumps(answer, default=str)))


if __name__ == "__main__":
    main()
