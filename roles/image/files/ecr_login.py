#!/usr/bin/env python3
"""Docker credential helper for Amazon ECR on the control machine, where boto3 is all that is assumed."""

import base64
import json
import re
import sys

import boto3
from botocore.exceptions import BotoCoreError, ClientError

REGISTRY = re.compile(r"\d{12}\.dkr\.ecr(?:-fips)?\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(?:\.cn)?")


def login(registry: str) -> dict[str, str]:
    """Ask AWS for a user name and a password that are valid for twelve hours.

    Args:
        registry: Host name of the registry.

    Returns:
        The answer of Docker's credential helper protocol.

    Raises:
        ValueError: This is not an Amazon ECR registry.
        BotoCoreError: There are no credentials, or AWS cannot be reached.
        ClientError: AWS refused.
    """
    match = REGISTRY.fullmatch(registry)
    if not match:
        wanted = "an address such as 123456789012.dkr.ecr.eu-central-1.amazonaws.com"
        raise ValueError(f"Expected {wanted}; got {registry}")
    answer = boto3.client("ecr", region_name=match["region"]).get_authorization_token()
    token = base64.b64decode(answer["authorizationData"][0]["authorizationToken"]).decode()
    user, _, password = token.partition(":")
    return {"ServerURL": registry, "Username": user, "Secret": password}


def main() -> None:
    """Answer `get`, the only request that reads; there is nothing to store or erase."""
    if sys.argv[1:] != ["get"]:
        return
    try:
        print(json.dumps(login(sys.stdin.readline().strip())))
    except (ValueError, BotoCoreError, ClientError) as error:
        print(error)  # on standard output, as the protocol requires
        sys.exit(1)


if __name__ == "__main__":
    main()
