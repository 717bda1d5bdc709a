"""The month's price: hand-calculated sums, a whole table of prices, and what the playbook says."""

from __future__ import annotations

import datetime
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from .project import ROOT, Run, load_module, play, read_yaml

cost = load_module("roles/cost/filter_plugins/cost.py")
TABLE: dict[str, Any] = read_yaml(ROOT / "roles/cost/files/prices.yml")
DEFAULTS: dict[str, Any] = {
    name.removeprefix("cost_"): value
    for name, value in read_yaml(ROOT / "roles/cost/defaults/main.yml").items()
}
RATES = {
    f"{group}/{rate}": figures
    for group, content in TABLE["groups"].items()
    for rate, figures in content["rates"].items()
}
FIGURE = re.compile(r"~?[0-9]+([.][0-9]+)?")
WIDTH = 100


def estimate(region: str = "us-east-1", **want: Any) -> dict[str, Any]:
    return dict(cost.cost_estimate(TABLE, DEFAULTS | {"region": region} | want))


def amounts(lines: list[dict[str, Any]]) -> dict[str, Decimal]:
    return {line["name"]: Decimal(line["amount"]) for line in lines}


def test_price_of_the_default_host_by_hand() -> None:
    found = estimate()
    assert amounts(found["lines"]) == {
        "EC2 t3.medium": Decimal("30.37"),  # 730 h x 0.0416 = 30.368
        "root volume, gp3": Decimal("3.20"),  # 40 x 0.08
        "data volume, gp3": Decimal("4.00"),  # 50 x 0.08
        "public IPv4 address": Decimal("3.65"),  # 730 h x 0.005
        "S3 storage": Decimal("0.23"),  # 10 x 0.023
        "S3 writes": Decimal("0.05"),  # 10 thousand x 0.005
        "S3 reads": Decimal("0.02"),  # 50 thousand x 0.0004
        "transfer to the internet": Decimal("0.90"),  # 10 x 0.09
        "recovery alarm": Decimal("0.10"),
    }
    assert found["total"] == "42.52"


def test_price_of_everything_that_can_be_declared_by_hand() -> None:
    found = estimate(
        instance_type="m7g.large",
        image_source="ecr",
        backend="postgresql",
        database_create=True,
        database_storage=100,
        backup_gigabytes="20",
        dns_zone="ml.example.org",
    )
    lines = amounts(found["lines"])
    assert lines["EC2 m7g.large"] == Decimal("59.57")  # 730 h x 0.0816 = 59.568
    assert lines["images in ECR"] == Decimal("0.50")  # 5 x 0.1
    assert lines["RDS db.t4g.micro"] == Decimal("11.68")  # 730 h x 0.016
    assert lines["database storage, gp3"] == Decimal("11.50")  # 100 x 0.115
    assert lines["backups beyond that size"] == Decimal("1.90")  # 20 x 0.095
    assert lines["Route 53 zone"] == Decimal("0.50")
    assert found["total"] == "97.80"


@pytest.mark.parametrize(
    "want",
    [{"backend": "postgresql", "database_create": False}, {"backend": "sqlite", "database_create": True}],
)
def test_no_database_is_priced_that_nobody_creates(want: dict[str, Any]) -> None:
    assert not [line["name"] for line in estimate(**want)["lines"] if "RDS" in line["name"]]


def test_prices_of_the_managed_services_by_hand() -> None:
    found = estimate(endpoint_type="ml.m5.large", prediction_seconds="0.5", predictions_per_month=1_000_000)
    assert amounts(found["managed"]) == {
        "SageMaker endpoints": Decimal("335.80"),  # 4 x 730 h x 0.115
        "SageMaker serverless": Decimal("20.00"),  # 1 000 000 x 0.5 s x 2 GiB x 0.00002
        "Lambda": Decimal("16.87"),  # 1 000 000 GiB-seconds x 0.0000166667, and a million x 0.2
        "SageMaker training jobs": Decimal("0.58"),  # 30 x 10 min = 5 h x 0.115 = 0.575
        "SageMaker MLflow server": Decimal("468.76"),  # 730 h x 0.642, and 1 x 0.1
        "SageMaker MLflow App": Decimal("0.00"),
        "App Runner for the app": Decimal("12.78"),  # 2 x 730 h x 0.007, and 40 h x 0.064
    }
    assert amounts(found["together"]) == {
        # 1.20 is S3 and transfer: 0.23 + 0.05 + 0.02 + 0.90
        "all of it, always on": Decimal("335.80")
        + Decimal("468.76")
        + Decimal("12.78")
        + Decimal("0.58")
        + Decimal("1.20"),
        "all of it, paid by use": Decimal("16.87") + Decimal("12.78") + Decimal("0.58") + Decimal("1.20"),
    }


@pytest.mark.parametrize("region", TABLE["regions"])
def test_sums_are_those_of_the_printed_lines(region: str) -> None:
    found = estimate(region, image_source="ecr", artifact_reads=12345, artifact_gigabytes=7.77)
    assert Decimal(found["total"]) == sum(amounts(found["lines"]).values())
    for line in found["managed"] + found["together"]:
        assert Decimal(line["saved"]) == Decimal(line["amount"]) - Decimal(found["total"])


def test_comparison_is_honest_where_we_are_dearer() -> None:
    saved = {line["name"]: Decimal(line["saved"]) for line in estimate()["managed"]}
    assert saved["SageMaker MLflow App"] == -Decimal(estimate()["total"])
    assert saved["SageMaker endpoints"] > 0


def test_half_a_cent_is_rounded_up() -> None:
    assert cost.money(Decimal("0.125")) == Decimal("0.13")


def test_numbers_keep_their_digits() -> None:
    """0.1 + 0.2 is 0.3, whether they come from YAML or from the command line."""
    assert cost.number(0.1) + cost.number("0.2") == Decimal("0.3")


@pytest.mark.parametrize("name", RATES)
def test_every_region_has_every_price(name: str) -> None:
    figures = RATES[name]
    assert len(figures) in {1, len(TABLE["regions"])}
    assert all(FIGURE.fullmatch(f"{Decimal(str(figure).lstrip('~')):f}") for figure in figures)
    assert all(FIGURE.fullmatch(str(figure)) or isinstance(figure, float) for figure in figures)


@pytest.mark.parametrize("group", TABLE["groups"])
def test_every_group_says_what_it_is_about(group: str) -> None:
    content = TABLE["groups"][group]
    assert content["source"].startswith("https://aws.amazon.com/")
    assert content["unit"]
    # What is said to have been seen nowhere must carry the mark, and what carries none must have been seen.
    seen = [
        figure
        for figures in content["rates"].values()
        for figure in figures
        if not str(figure).startswith("~")
    ]
    assert bool(seen) == (content["seen"] != "nowhere")


def test_a_larger_machine_of_a_family_costs_more_everywhere() -> None:
    """A figure in the wrong column or with a digit too many would be."""
    sizes = ["small", "medium", "large", "xlarge"]
    for name, figures in RATES.items():
        family, _, size = name.rpartition(".")
        larger = f"{family}.{sizes[sizes.index(size) + 1]}" if size in sizes[:-1] else ""
        if larger in RATES:
            for small, large in zip(figures, RATES[larger], strict=True):
                ratio = Decimal(str(large).lstrip("~")) / Decimal(str(small).lstrip("~"))
                assert Decimal("1.9") < ratio < Decimal("2.1"), (name, larger)


def test_table_is_not_of_the_future() -> None:
    assert isinstance(TABLE["date"], datetime.date)
    assert TABLE["date"] <= datetime.datetime.now(tz=datetime.UTC).date()


def test_types_that_the_project_names_have_a_price() -> None:
    """Whatever type a default or a document shows can be priced."""
    files = [
        *ROOT.glob("roles/*/defaults/main.yml"),
        *ROOT.glob("docs/*.md"),
        ROOT / "README.md",
    ]
    kind = re.compile(r"\b(?:ml\.|db\.)?[a-z][0-9][a-z]*(?:-flex)?\.(?:micro|small|medium|x?large)\b")
    named = {match for path in files for match in kind.findall(path.read_text())}
    assert {"t3.medium", "db.t4g.micro", "ml.m5.large"} <= named
    types = {name.partition("/")[2] for name in RATES}
    assert named <= types
    documented = {"t3.medium", "t3.large", "t4g.medium", "t4g.large", "m7i.large", "m7g.large", "c7i.large"}
    assert documented <= types


def test_own_price_wins_and_is_for_sure() -> None:
    own = {"ec2/t3.medium": "0.05", "ebs/gp3": 0.1, "s3/standard": 0.03, "rds/db.t4g.micro": 1}
    found = estimate("ap-northeast-1", prices=own)
    lines = {line["name"]: line for line in found["lines"]}
    assert lines["EC2 t3.medium"]["amount"] == "36.50"
    assert lines["root volume, gp3"]["amount"] == "4.00"
    assert lines["S3 storage"]["confirmed"] is True
    assert found["unused"] == ["rds/db.t4g.micro"]


def test_price_from_memory_is_marked() -> None:
    lines = {line["name"]: line for line in estimate("ap-northeast-1")["lines"]}
    assert lines["S3 storage"]["confirmed"] is False
    assert lines["S3 storage"]["price"].startswith("~")
    assert lines["EC2 t3.medium"]["confirmed"] is True


def test_unknown_type_is_missing_and_not_guessed() -> None:
    found = estimate(instance_type="x1.huge", training_type="ml.x1.huge")
    assert set(found) == {"missing"}
    assert [(price["name"], price["variable"]) for price in found["missing"]] == [
        ("ec2/x1.huge", "aws_instance_type"),
        ("sagemaker/ml.x1.huge", "cost_training_type"),
    ]


def test_region_that_the_table_lacks_works_with_own_prices() -> None:
    missing = estimate("mars-1")["missing"]
    prices = {price["name"]: 1 for price in missing}
    assert estimate("mars-1", prices=prices)["missing"] == []


def test_order_of_a_long_number_is_easy_to_read() -> None:
    assert [cost.short(Decimal(text)) for text in ("1000000", "0.50", "10", "730", "0")] == [
        "1 000 000",
        "0.5",
        "10",
        "730",
        "0",
    ]


def test_readme_shows_what_the_playbook_says() -> None:
    """Whoever changes a price or a default pastes the output anew."""
    found = estimate("eu-central-1")
    block = (
        (ROOT / "README.md")
        .read_text()
        .partition("$ ansible-playbook playbooks/cost.yml\n")[2]
        .partition("```")[0]
    )
    shown = {line.split("  ")[0].strip(): line for line in block.splitlines()}
    for line in [*found["lines"], {"name": "total", "amount": found["total"]}]:
        assert shown[line["name"]].endswith(line["amount"])
    for line in found["managed"] + found["together"]:
        row = next(row for name, row in shown.items() if name.startswith(line["name"]))
        assert f"{line['amount']}  " in row
        assert row.endswith(line["saved"].lstrip("-"))


def screen(run: Run) -> list[str]:
    """The lines that the playbook says, without what Ansible adds."""
    return [line for line in run.output.splitlines() if line.startswith("  ")]


def extra(**variables: Any) -> tuple[str, str]:
    return "--extra-vars", yaml.safe_dump(variables, default_flow_style=True, width=1000)


@pytest.mark.slow
@pytest.mark.parametrize("inventory", ["aws", "sandbox"])
def test_playbook_prices_what_is_declared_without_credentials(inventory: str, tmp_path: Path) -> None:
    run = play("playbooks/cost.yml", "-i", f"inventory/{inventory}", home=tmp_path)
    assert (run.returncode, run.changed) == (0, 0), run.output
    problems = len(list((ROOT / "training/problems").glob("*.yaml")))
    assert f"{problems} x ml.t2.medium, always on" in run.said
    assert "is dearer by" in run.said
    assert "This platform costs more if you need only: SageMaker serverless, Lambda" in run.said
    assert ("which charges nothing" in run.said) == (inventory == "sandbox")
    assert "https://calculator.aws" in run.said
    assert max(map(len, screen(run))) <= WIDTH
    assert len(screen(run)) < 45

    region = re.search(r"before tax, in ([a-z0-9-]+)", run.said)
    assert region
    total = re.search(r"^  total +~?([0-9.]+)$", run.output, flags=re.MULTILINE)
    printed = re.findall(r"^  .+ per .+ ([0-9.]+)$", run.output, flags=re.MULTILINE)
    assert total
    assert Decimal(total[1]) == sum(map(Decimal, printed))
    assert total[1] in run.said.partition("What is declared costs")[2][:20]


@pytest.mark.slow
def test_playbook_prices_the_declared_rather_than_the_default(tmp_path: Path) -> None:
    variables = {
        "aws_region": "us-east-1",
        "aws_instance_type": "t4g.large",
        "aws_root_volume_size": 30,
        "aws_data_volume_size": 200,
        "image_source": "ecr",
        "mlflow_backend": "postgresql",
        "aws_database_create": True,
        "aws_database_instance_type": "db.t4g.small",
        "aws_database_storage": 50,
        "aws_dns_zone": "ml.example.org",
        "cost_endpoints": 2,
    }
    run = play("playbooks/cost.yml", *extra(**variables), home=tmp_path)
    assert run.returncode == 0, run.output
    for line in [
        "EC2 t4g.large 730 h 0.0672 per hour 49.06",
        "root volume, gp3 30 GiB 0.08 per GiB and month 2.40",
        "data volume, gp3 200 GiB 0.08 per GiB and month 16.00",
        "images in ECR 5 GiB",
        "RDS db.t4g.small 730 h 0.032 per hour 23.36",
        "database storage, gp3 50 GiB 0.115 per GiB and month 5.75",
        "Route 53 zone 1 0.5 per zone and month 0.50",
        "SageMaker endpoints 2 x ml.t2.medium, always on",
    ]:
        assert line in run.said, run.output


@pytest.mark.slow
def test_server_of_ones_own_costs_nothing_in_aws(tmp_path: Path) -> None:
    run = play("playbooks/cost.yml", "-i", "inventory/server", home=tmp_path)
    assert (run.returncode, run.changed) == (0, 0), run.output
    assert "AWS charges nothing for this target (mlstack_cloud = none)" in run.said
    assert "a month" not in run.said


REFUSALS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "region": (
        {"aws_region": "mars-1"},
        [
            "aws_region = mars-1: the price table of",
            "It has us-east-1, us-east-2,",
            "ec2/t3.medium: PRICE # per hour",
        ],
    ),
    "type": (
        {"aws_instance_type": "x1.huge"},
        [
            "aws_instance_type = x1.huge: the price table of",
            "t3.small, t3.medium",
            "ec2/x1.huge: PRICE # per hour",
        ],
    ),
    "number": (
        {"cost_trainings_per_month": -3},
        ["cost_trainings_per_month = -3: expected a number, 0 or more"],
    ),
    "type of a number": (
        {"cost_endpoints": "many"},
        ["cost_endpoints = many: expected a number, 0 or more"],
    ),
    "own price": (
        {"cost_prices": {"ec2/t3.medium": "PRICE", "t3.medium": 1}},
        [
            "cost_prices: ec2/t3.medium = PRICE: expected an amount",
            "cost_prices: t3.medium: expected the name of a price",
        ],
    ),
    "own prices": ({"cost_prices": "cheap"}, ["cost_prices = cheap: expected names with prices"]),
    "no such source": ({"image_source": "tape"}, ["cost_image_source", "build, archive, ecr", "tape"]),
    "no region": ({"aws_region": ""}, ["aws_region has no value: expected an AWS region"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", REFUSALS)
def test_playbook_refuses_rather_than_guesses(case: str, tmp_path: Path) -> None:
    variables, messages = REFUSALS[case]
    run = play("playbooks/cost.yml", *extra(**variables), home=tmp_path)
    assert run.returncode != 0
    assert not [message for message in messages if message not in run.said], run.output
    assert "then type: ansible-playbook playbooks/cost.yml" in run.said.replace("Then type", "then type")
    assert "inventory/aws/group_vars/aws.yml" in run.said
    assert "Traceback" not in run.output
    assert "a month" not in run.said


def test_fallbacks_of_the_wiring_are_the_defaults_of_the_role_that_declares() -> None:
    declared = read_yaml(ROOT / "roles/aws/defaults/main.yml")
    wiring = (ROOT / "group_vars/all/wiring.yml").read_text()
    fallbacks = re.findall(r"^cost_\w+: \"{{ (aws_\w+) \| default\(([^(),]+)\) }}\"$", wiring, re.MULTILINE)
    known = {name: yaml.safe_load(value) for name, value in fallbacks if name in declared}
    assert len(known) >= 6
    assert known == {name: declared[name] for name in known}
