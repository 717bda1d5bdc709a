"""Filter that prices what is declared, and the same work in AWS's managed services, from one table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, NamedTuple

CENT = Decimal("0.01")
FROM_MEMORY = "~"
# The variables that choose a rate within a group, by the role's names for them; no other group has a choice.
CHOSEN_BY = {
    "ec2": {"instance_type": "aws_instance_type"},
    "rds": {"database_instance_type": "aws_database_instance_type"},
    "sagemaker": {"endpoint_type": "cost_endpoint_type", "training_type": "cost_training_type"},
}


class Price(NamedTuple):
    """One price of the table.

    Attributes:
        amount: USD for one unit.
        unit: The unit, such as ``hour``.
        confirmed: Whether a public copy or the operator confirms it.
    """

    amount: Decimal
    unit: str
    confirmed: bool = True


class Line(NamedTuple):
    """Something that costs money every month.

    Attributes:
        name: What it is.
        detail: How much of it.
        terms: The prices that it is charged at, each with its name and the number of units.
    """

    name: str
    detail: str
    terms: tuple[tuple[str, Decimal], ...]


def number(value: object) -> Decimal:
    """Read a number exactly as it was written, from YAML or from the command line."""
    return Decimal(str(value))


def short(value: Decimal) -> str:
    """Format a number without trailing zeros, with spaces between thousands."""
    text = f"{value:,f}".replace(",", " ")
    return text.rstrip("0").rstrip(".") if "." in text else text


def money(value: Decimal) -> Decimal:
    """Round USD to cents, as on a bill."""
    return value.quantize(CENT, ROUND_HALF_UP)


def prices_of(table: Mapping[str, Any], region: str, own: Mapping[str, Any]) -> dict[str, Price]:
    """List the prices of one region.

    Args:
        table: The content of `files/prices.yml`.
        region: Name of an AWS region; one that the table lacks has only the operator's own prices.
        own: The operator's own prices in USD, by name; they take precedence.

    Returns:
        Prices by name, such as ``ec2/t3.medium``.
    """
    found = {}
    for group, content in table["groups"].items():
        for rate, figures in content["rates"].items():
            name = f"{group}/{rate}"
            if name in own:
                found[name] = Price(number(own[name]), content["unit"])
            elif region in table["regions"]:
                column = list(table["regions"]).index(region) if len(figures) > 1 else 0
                figure = str(figures[column])
                amount = Decimal(figure.lstrip(FROM_MEMORY))
                found[name] = Price(amount, content["unit"], not figure.startswith(FROM_MEMORY))
        for name in own:
            if name.partition("/")[0] == group and name not in found:
                found[name] = Price(number(own[name]), content["unit"])
    return found


def declared_lines(want: Mapping[str, Any], hours: Decimal) -> list[Line]:
    """List what AWS charges for on the platform as declared.

    Args:
        want: The role's variables without their prefix.
        hours: Hours in a month.
    """
    gibibytes = "{} GiB".format

    def line(name: str, price: str, quantity: Decimal, detail: str) -> Line:
        return Line(name, detail, ((price, quantity),))

    root, data = number(want["root_volume_size"]), number(want["data_volume_size"])
    lines = [
        line(f"EC2 {want['instance_type']}", f"ec2/{want['instance_type']}", hours, f"{short(hours)} h"),
        line("root volume, gp3", "ebs/gp3", root, gibibytes(short(root))),
        line("data volume, gp3", "ebs/gp3", data, gibibytes(short(data))),
        line("public IPv4 address", "ipv4/address", hours, f"{short(hours)} h"),
        *store_lines(want),
        line("recovery alarm", "cloudwatch/alarm", Decimal(1), "1"),
    ]
    if want["image_source"] == "ecr":
        size = number(want["image_gigabytes"])
        lines.append(line("images in ECR", "ecr/storage", size, gibibytes(short(size))))
    if want["backend"] == "postgresql" and want["database_create"]:
        kind, size = want["database_instance_type"], number(want["database_storage"])
        backup = number(want["backup_gigabytes"])
        lines += [
            line(f"RDS {kind}", f"rds/{kind}", hours, f"{short(hours)} h"),
            line("database storage, gp3", "rds-storage/gp3", size, gibibytes(short(size))),
            line("backups beyond that size", "rds-storage/backup", backup, gibibytes(short(backup))),
        ]
    if want["dns_zone"]:
        lines.append(line("Route 53 zone", "route53/zone", Decimal(1), "1"))
    return lines


def store_lines(want: Mapping[str, Any]) -> list[Line]:
    """List what storing and reading the artifacts costs, on this platform or any other."""
    size, out = number(want["artifact_gigabytes"]), number(want["transfer_gigabytes"])
    lines = [Line("S3 storage", f"{short(size)} GiB", (("s3/standard", size),))]
    for what in ("write", "read"):
        count = number(want[f"artifact_{what}s"])
        lines.append(Line(f"S3 {what}s", short(count), ((f"s3-requests/{what}", count / 1000),)))
    return [*lines, Line("transfer to the internet", f"{short(out)} GB", (("transfer/out", out),))]


def managed_lines(want: Mapping[str, Any], hours: Decimal) -> dict[str, Line]:
    """List the AWS managed services that do part of the same work.

    Args:
        want: The role's variables without their prefix.
        hours: Hours in a month.
    """
    endpoints, trainings = number(want["endpoints"]), number(want["trainings_per_month"])
    predictions, seconds = number(want["predictions_per_month"]), number(want["prediction_seconds"])
    memory, minutes = number(want["prediction_gigabytes"]), number(want["training_minutes"])
    app_memory, app_cpus = number(want["app_gigabytes"]), number(want["app_cpus"])
    active, metadata = number(want["app_active_hours"]), number(want["metadata_gigabytes"])
    calls = f"{short(predictions)} predictions of {short(seconds)} s in {short(memory)} GiB"
    work = predictions * seconds * memory
    return {
        "endpoints": Line(
            "SageMaker endpoints",
            f"{short(endpoints)} x {want['endpoint_type']}, always on",
            ((f"sagemaker/{want['endpoint_type']}", endpoints * hours),),
        ),
        "serverless": Line("SageMaker serverless", calls, (("sagemaker-serverless/inference", work),)),
        "lambda": Line(
            "Lambda",
            calls,
            (("lambda/duration", work), ("lambda-requests/request", predictions / 1_000_000)),
        ),
        "training": Line(
            "SageMaker training jobs",
            f"{short(trainings)} x {short(minutes)} min on {want['training_type']}",
            ((f"sagemaker/{want['training_type']}", trainings * minutes / 60),),
        ),
        "tracking": Line(
            "SageMaker MLflow server",
            f"Small, {short(hours)} h, {short(metadata)} GiB of metadata",
            (("sagemaker-mlflow/small", hours), ("sagemaker-mlflow-storage/metadata", metadata)),
        ),
        "app": Line("SageMaker MLflow App", "serverless, free of charge", (("sagemaker-mlflow/app", hours),)),
        "apprunner": Line(
            "App Runner for the app",
            f"{short(app_memory)} GiB always, {short(app_cpus)} vCPU for {short(active)} h",
            (("apprunner/memory", app_memory * hours), ("apprunner/cpu", app_cpus * active)),
        ),
    }


# The managed services that together do what the platform does; S3 is added.
TOGETHER = {
    "all of it, always on": ("endpoints", "tracking", "apprunner", "training"),
    "all of it, paid by use": ("lambda", "app", "apprunner", "training"),
}
SHORT = {
    "endpoints": "endpoints",
    "tracking": "server",
    "apprunner": "App Runner",
    "training": "jobs",
    "lambda": "Lambda",
    "app": "MLflow App",
}


def priced(line: Line, prices: Mapping[str, Price]) -> dict[str, Any]:
    """Price a line.

    Returns:
        What a template prints; amounts are text, so that no digit is lost.
    """
    first = prices[line.terms[0][0]]
    return {
        "name": line.name,
        "detail": line.detail,
        "price": f"{'' if first.confirmed else FROM_MEMORY}{short(first.amount)} per {first.unit}",
        "amount": str(money(sum((prices[name].amount * count for name, count in line.terms), Decimal(0)))),
        "confirmed": all(prices[name].confirmed for name, _ in line.terms),
    }


def add_up(lines: Iterable[Mapping[str, Any]]) -> Decimal:
    """Add up the amounts as printed, so that a reader gets the same sum."""
    return sum((Decimal(line["amount"]) for line in lines), Decimal("0.00"))


def cost_estimate(table: Mapping[str, Any], want: Mapping[str, Any]) -> dict[str, Any]:
    """Price a month of what is declared, and of the same work in managed services.

    Args:
        table: The content of `files/prices.yml`.
        want: The role's variables without their prefix.

    Returns:
        ``missing``, prices that the table lacks: each with its name, its unit, the variable that needs it
        and the available rates. If there are none: ``lines`` and their ``total``; ``managed`` and
        ``together``, each with how much the platform saves (negative if it costs more); and ``unused``,
        own prices that nothing needs. All amounts are in USD per month.
    """
    hours = number(table["hours_per_month"])
    region, own = str(want["region"]), want["prices"]
    prices = prices_of(table, region, own)
    lines, store, managed = declared_lines(want, hours), store_lines(want), managed_lines(want, hours)
    needed = list(dict.fromkeys(name for line in [*lines, *managed.values()] for name, _ in line.terms))
    missing = [name for name in needed if name not in prices]
    if missing:
        return {"missing": [lacking(name, table, want) for name in missing]}

    ours = [priced(line, prices) for line in lines]
    total = add_up(ours)
    theirs = {key: priced(line, prices) for key, line in managed.items()}
    kept = [priced(line, prices) for line in store]

    def compared(line: Mapping[str, Any]) -> dict[str, Any]:
        return {**line, "saved": str(Decimal(line["amount"]) - total)}

    together = []
    for name, parts in TOGETHER.items():
        chosen = [*(theirs[part] for part in parts), *kept]
        detail = ", ".join([*(SHORT[part] for part in parts), "S3"])
        confirmed = all(line["confirmed"] for line in chosen)
        whole = {"name": name, "detail": detail, "amount": str(add_up(chosen)), "confirmed": confirmed}
        together.append(compared(whole))
    return {
        "missing": [],
        "lines": ours,
        "total": str(total),
        "managed": [compared(line) for line in theirs.values()],
        "together": together,
        "unused": sorted(set(own) - set(needed)),
    }


def lacking(name: str, table: Mapping[str, Any], want: Mapping[str, Any]) -> dict[str, Any]:
    """Describe a price missing from the table, for a message."""
    group, _, rate = name.partition("/")
    content = table["groups"][group]
    return {
        "name": name,
        "unit": content["unit"],
        "variable": " and ".join(v for own, v in CHOSEN_BY.get(group, {}).items() if want[own] == rate),
        "value": rate,
        "rates": list(content["rates"]),
    }


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return each filter by name."""
        return {"cost_estimate": cost_estimate}
