"""Filters: what AWS or good sense would refuse, which rules and subnets to create, and what has to change."""

from __future__ import annotations

import ipaddress
import itertools
import re
from collections.abc import Callable, Iterable
from typing import Any

_BUCKET_PREFIXES = ("xn--", "sthree-", "amzn-s3-demo-")
_BUCKET_SUFFIXES = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")


def as_list(value: str | Iterable[object]) -> list[str]:
    """Turn `-e variable=a,b`, which is a string, or the inventory's list into a list of strings."""
    items = value.split(",") if isinstance(value, str) else value
    return [text for item in items if (text := str(item).strip())]


def cidr_problems(cidrs: str | Iterable[object], allow_world: bool = False) -> list[str]:
    """Say which of these are not networks in CIDR notation (or `auto`), or are the whole internet."""
    problems = []
    for cidr in as_list(cidrs):
        if cidr == "auto":
            continue
        address, slash, _ = cidr.partition("/")
        try:
            network = ipaddress.ip_network(cidr, strict=False)
        except ValueError:
            problems.append(f"{cidr} is not a network in CIDR notation, such as 203.0.113.7/32")
            continue
        if not slash:
            problems.append(f"{cidr} has no prefix length; for this single address write {network}")
        elif ipaddress.ip_address(address) != network.network_address:
            problems.append(
                f"{cidr} has bits set to the right of its prefix; write {network} for the network "
                f"or {address}/{network.max_prefixlen} for the single address"
            )
        elif network.prefixlen == 0 and not allow_world:
            problems.append(
                f"{cidr} is the whole internet, and MLflow has no password of its own: anyone could read and "
                "delete your models. List your own networks, or set aws_allow_world to true if you mean it"
            )
    return problems


def bucket_name_problems(name: object) -> list[str]:
    """List the S3 rules for general purpose bucket names that this name breaks."""
    name = str(name)
    rules = [
        (3 <= len(name) <= 63, f"is {len(name)} characters long, not 3 to 63"),
        (re.fullmatch(r"[a-z0-9.-]*", name), "may contain only lowercase letters, digits, hyphens and dots"),
        (re.fullmatch(r"[a-z0-9].*[a-z0-9]|[a-z0-9]", name), "must begin and end with a letter or a digit"),
        (".." not in name, "must not contain two dots in a row"),
        (".-" not in name and "-." not in name, "must not contain a dot next to a hyphen"),
        (not re.fullmatch(r"(\d{1,3}\.){3}\d{1,3}", name), "must not look like an IP address"),
        (not name.startswith(_BUCKET_PREFIXES), f"must not begin with any of {', '.join(_BUCKET_PREFIXES)}"),
        (not name.endswith(_BUCKET_SUFFIXES), f"must not end with any of {', '.join(_BUCKET_SUFFIXES)}"),
    ]
    return [problem for kept, problem in rules if not kept]


def rules(openings: Iterable[dict[str, Any]], own_address: str = "") -> list[dict[str, Any]]:
    """List ingress rules for ec2_security_group, one for each port and network.

    Args:
        openings: Each has `ports`, and the `cidrs` that may reach them.
        own_address: The address that `auto` stands for.

    Returns:
        `line` is the rule as aws_platform_info writes it, `rule` what the module takes.
    """
    found = {}
    for opening in openings:
        for cidr in as_list(opening["cidrs"]):
            network = ipaddress.ip_network(own_address if cidr == "auto" else cidr, strict=False)
            kind = "cidr_ip" if network.version == 4 else "cidr_ipv6"
            for port in map(int, opening["ports"]):
                rule = {"proto": "tcp", "from_port": port, "to_port": port, kind: str(network)}
                found[f"tcp {port} {network}"] = rule
    return [{"line": line, "rule": rule} for line, rule in found.items()]


def subnet(cidr: str, number: int) -> str:
    """Return the /24 network with this number (from 0) within a larger one."""
    return str(next(itertools.islice(ipaddress.ip_network(cidr).subnets(new_prefix=24), number, None)))


def plan(have: dict[str, Any], wanted: dict[str, Any]) -> list[dict[str, Any]]:
    """Compare what exists with what is wanted, part by part.

    Args:
        have: Part to its description; parts that do not exist are absent.
        wanted: Part to its wanted state, or None. Additional tags are allowed.

    Returns:
        Parts to create or change, each with the values before and after.
    """
    changes = []
    for part, wish in wanted.items():
        if wish is None:
            continue
        there = have.get(part)
        now = {key: (there or {}).get(key) for key in wish}
        if there and "tags" in wish:
            now["tags"] = {key: there["tags"][key] for key in wish["tags"] if key in there["tags"]}
        if there is None or now != wish:
            keys = [key for key in wish if now[key] != wish[key]]
            changes.append(
                {
                    "part": part,
                    "action": "change" if there else "create",
                    "keys": keys,
                    "before": {key: now[key] for key in keys} if there else {},
                    "after": {key: wish[key] for key in keys},
                }
            )
    return changes


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return each filter by name."""
        return {
            "aws_list": as_list,
            "aws_cidr_problems": cidr_problems,
            "aws_bucket_name_problems": bucket_name_problems,
            "aws_rules": rules,
            "aws_subnet": subnet,
            "aws_plan": plan,
        }
