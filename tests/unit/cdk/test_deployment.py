"""What may stand in a deploy.toml, and what is said of what may not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from headrace.cdk.deployment import (
    Deployment,
    FargateOptions,
    LambdaOptions,
    Placement,
    ServiceOptions,
)
from headrace.errors import ConfigurationError

BEGIN = 'system = "shop"\nnamespace = "prod"\nsources = "{root}"\n'
INVENTORY = '[services.inventory]\napp = "services.inventory.app:inventory"\nhost = "lambda"\n'
ROOT = Path(__file__).parents[3]


LONG = """
from headrace import Service

long = Service("x" * 60)
"""


def refused(text: str, tmp_path: Path, sources: Path = ROOT) -> str:
    file = tmp_path / "deploy.toml"
    file.write_text(BEGIN.format(root=sources) + text)
    with pytest.raises(ConfigurationError) as refusal:
        Deployment.read(file)
    return str(refusal.value).replace(f"{file}: ", "")


def accepted(text: str, tmp_path: Path, **options: object) -> Deployment:
    file = tmp_path / "deploy.toml"
    file.write_text(BEGIN.format(root=ROOT) + text)
    return Deployment.read(file, **options)  # type: ignore[arg-type]


def test_a_service_needs_its_code_and_its_host_and_nothing_else(tmp_path: Path) -> None:
    (placed,) = accepted(INVENTORY, tmp_path).services
    assert placed.name == "inventory"
    assert placed.package == "services.inventory"
    assert placed.options.host is Placement.LAMBDA
    assert placed.options.on_lambda.timeout == 10


def test_the_topology_is_that_of_the_services(tmp_path: Path) -> None:
    queues = accepted(INVENTORY, tmp_path).topology.queues
    assert [queue.name for queue in queues] == ["inventory", "inventory-dlq"]


def test_a_second_stage_has_a_namespace_and_stacks_of_its_own(tmp_path: Path) -> None:
    assert accepted(INVENTORY, tmp_path).prefix == "shop-prod"
    second = accepted(INVENTORY, tmp_path, namespace="shop-test")
    assert (second.namespace, second.prefix) == ("shop-test", "shop-test")


def test_all_services_may_be_placed_elsewhere_than_the_file_says(tmp_path: Path) -> None:
    (placed,) = accepted(INVENTORY, tmp_path, host=Placement.FARGATE).services
    assert not placed.options.host.on_lambda


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "services: Field required"),
        (INVENTORY + "memory = 1\n", "services.inventory.memory: Extra inputs are not permitted"),
        (INVENTORY.replace('"lambda"', '"ec2"'), "'lambda', 'fargate' or 'both'"),
        (INVENTORY + "[services.inventory.lambda]\nmemory = 64\n", "lambda.memory: Input should"),
        (
            INVENTORY.replace("[services.inventory]", "[services.stock]"),
            "services.stock is the service 'inventory': write [services.inventory]",
        ),
        (
            INVENTORY + "[services.inventory.lambda]\ntimeout = 30\n",
            "a timeout of 30 s and a window of 0 s want a visibility of 180 s",
        ),
        (
            INVENTORY + "[services.inventory.lambda]\nbatch = 100\n",
            "a batch of more than 10 needs a window of 1 s or more",
        ),
        (
            INVENTORY.replace('"lambda"', '"fargate"')
            + "[services.inventory.fargate]\nleast = 5\nmost = 2\n",
            "services.inventory.fargate: least is more than most",
        ),
        (
            '[services.order]\napp = "services.order.app:order"\nhost = "lambda"\n'
            "[services.order.lambda]\ntimeout = 5\n",
            "its handler authorise_payment may run for 8 s, and the function ends after 5 s",
        ),
        (INVENTORY.replace("inventory.app", "inventory.nothing"), "services.inventory.nothing"),
        ("[services", "is not TOML"),
        (
            '[services.order]\napp = "services.order.app:order"\nhost = "fargate"\n'
            "[services.order.fargate]\nleast = 0\n",
            "is relayed by its worker: keep one task, with least = 1",
        ),
    ],
)
def test_what_cannot_be_is_told_with_its_place(text: str, sentence: str, tmp_path: Path) -> None:
    assert sentence in refused(text, tmp_path)


@pytest.mark.parametrize("namespace", ["PR_12", "a" * 33, "-prod"])
def test_a_namespace_that_no_name_can_begin_with_is_refused(namespace: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot begin names in AWS"):
        accepted(INVENTORY, tmp_path, namespace=namespace)


def test_a_name_that_is_too_long_for_aws_is_told(tmp_path: Path) -> None:
    (tmp_path / "long_names.py").write_text(LONG)
    text = f'[services.{"x" * 60}]\napp = "long_names:long"\nhost = "fargate"\n'
    assert "-scheduler' has 75 characters" in refused(text, tmp_path, sources=tmp_path)


def test_a_service_with_secrets_can_ask_for_them(tmp_path: Path) -> None:
    (placed,) = accepted(INVENTORY + 'secrets = ["KEY"]\n', tmp_path).services
    assert placed.models == ("secretsmanager",)
    (plain,) = accepted(INVENTORY, tmp_path).services
    assert plain.models == ()


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"There is no file .*deploy\.toml: write one"):
        Deployment.read(tmp_path / "deploy.toml")


@pytest.mark.parametrize(
    ("section", "options"),
    [
        ("[services.NAME]", ServiceOptions),
        ("[services.NAME.lambda]", LambdaOptions),
        ("[services.NAME.fargate]", FargateOptions),
    ],
)
def test_the_reference_names_every_key(section: str, options: type[BaseModel]) -> None:
    page = (ROOT / "docs" / "reference" / "deploy-toml.md").read_text()
    rows = page.partition(f"## {section}\n")[2].partition("\n## ")[0]
    told = re.findall(r"^\| `([a-z_]+)` \|", rows, re.M)
    assert sorted(told) == sorted(set(options.model_fields) - {"on_lambda", "on_fargate"})
