"""Filters that say, in words, what AWS or good sense would refuse. Each returns a list; empty means fine."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable

_BUCKET_PREFIXES = ("xn--", "sthree-", "amzn-s3-demo-")
_BUCKET_SUFFIXES = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")


def cidr_problems(cidrs: Iterable[object], allow_world: bool = False) -> list[str]:
    """Say which of these are not networks in CIDR notation, or are the whole internet."""
    problems = []
    for cidr in map(str, cidrs):
        address, slash, _ = cidr.partition("/")
        try:
            network = ipaddress.ip_network(cidr, strict=False)
        except ValueError:
            problems.append(f"{cidr} is not a network in CIDR notation such as 203.0.113.7/32")
            continue
        if not slash:
            problems.append(f"{cidr} lacks its prefix length; for this one address write {network}")
        elif ipaddress.ip_address(address) != network.network_address:
            problems.append(
                f"{cidr} has bits set to the right of its prefix; write {network} for the network "
                f"or {address}/{network.max_prefixlen} for the one address"
            )
        elif network.prefixlen == 0 and not allow_world:
            problems.append(
                f"{cidr} is the whole internet, and MLflow has no password of its own: anyone could read and "
                "delete your models. Name your own networks, or set aws_allow_world to true to mean it"
            )
    return problems


def bucket_name_problems(name: object) -> list[str]:
    """Say which of S3's rules for the name of a general purpose bucket this one breaks."""
    name = str(name)
    rules = [
        (3 <= len(name) <= 63, f"is {len(name)} characters long, not 3 to 63"),
        (re.fullmatch(r"[a-z0-9.-]*", name), "may hold only small letters, digits, hyphens and dots"),
        (re.fullmatch(r"[a-z0-9].*[a-z0-9]|[a-z0-9]", name), "must begin and end with a letter or a digit"),
        (".." not in name, "must not hold two dots in a row"),
        (".-" not in name and "-." not in name, "must not hold a dot beside a hyphen"),
        (not re.fullmatch(r"(\d{1,3}\.){3}\d{1,3}", name), "must not look like an IP address"),
        (not name.startswith(_BUCKET_PREFIXES), f"must not begin with any of {', '.join(_BUCKET_PREFIXES)}"),
        (not name.endswith(_BUCKET_SUFFIXES), f"must not end with any of {', '.join(_BUCKET_SUFFIXES)}"),
    ]
    return [problem for kept, problem in rules if not kept]


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., list[str]]]:
        """Name each filter."""
        return {
            "aws_cidr_problems": cidr_problems,
            "aws_bucket_name_problems": bucket_name_problems,
        }
