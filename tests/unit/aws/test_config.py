"""The environment says which AWS is meant, and how names there begin."""

from __future__ import annotations

import sys

import pytest

from headrace.aws.client import open_clients, open_ports
from headrace.aws.config import AwsConfig
from headrace.errors import ConfigurationError

EMULATOR = "http://127.0.0.1:4566"
EVERYWHERE = {
    "sqs": EMULATOR,
    "events": EMULATOR,
    "dynamodb": EMULATOR,
    "scheduler": EMULATOR,
    "secretsmanager": EMULATOR,
}


def test_names_begin_with_the_namespace() -> None:
    config = AwsConfig.from_environment({"HEADRACE_NAMESPACE": "dev"})

    assert config.physical("inventory") == "dev-inventory"
    assert config.logical("dev-inventory") == "inventory"


@pytest.mark.parametrize("namespace", ["my team", "dev/", "dev.eu", "a:b", "ü", "x" * 65])
def test_a_namespace_that_no_name_can_begin_with_is_refused_with_what_to_write(
    namespace: str,
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        AwsConfig.from_environment({"HEADRACE_NAMESPACE": namespace})

    assert str(caught.value).startswith(
        f"HEADRACE_NAMESPACE is {namespace!r}: write 1 to 64 letters, digits, hyphens and under"
    )


def test_names_are_as_they_are_without_a_namespace() -> None:
    config = AwsConfig.from_environment({})

    assert config.physical("inventory") == config.logical("inventory") == "inventory"


def test_the_default_bus_has_no_namespace() -> None:
    config = AwsConfig(namespace="dev")

    assert config.physical_bus("default") == "default"
    assert config.physical_bus("shop") == "dev-shop"
    assert config.physical("default") == "dev-default"


def test_a_fifo_queue_keeps_its_suffix_under_a_namespace() -> None:
    config = AwsConfig(namespace="dev")

    assert config.physical("orders.fifo") == "dev-orders.fifo"
    assert config.logical("dev-orders.fifo") == "orders.fifo"


@pytest.mark.parametrize(
    ("environ", "region"),
    [
        ({"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "us-west-2"}, "eu-west-1"),
        ({"AWS_DEFAULT_REGION": "us-west-2"}, "us-west-2"),
        ({}, None),
    ],
)
def test_the_region_is_that_of_lambda_then_that_of_the_command_line(
    environ: dict[str, str], region: str | None
) -> None:
    assert AwsConfig.from_environment(environ).region == region


def test_one_endpoint_serves_all_services() -> None:
    config = AwsConfig.from_environment({"AWS_ENDPOINT_URL": EMULATOR})

    assert config.endpoints == EVERYWHERE


@pytest.mark.parametrize(
    ("variable", "service"),
    [
        ("AWS_ENDPOINT_URL_SQS", "sqs"),
        ("AWS_ENDPOINT_URL_EVENTBRIDGE", "events"),
        ("AWS_ENDPOINT_URL_DYNAMODB", "dynamodb"),
        ("AWS_ENDPOINT_URL_SCHEDULER", "scheduler"),
    ],
)
def test_the_endpoint_of_one_service_goes_before_the_common_one(
    variable: str, service: str
) -> None:
    other = "http://127.0.0.1:8000"
    config = AwsConfig.from_environment({"AWS_ENDPOINT_URL": EMULATOR, variable: other})

    assert config.endpoints == EVERYWHERE | {service: other}


@pytest.mark.parametrize(("given", "role"), [("arn:x", "arn:x"), (" ", None), (None, None)])
def test_the_role_of_schedules_is_named_by_the_environment(
    given: str | None, role: str | None
) -> None:
    environ = {} if given is None else {"HEADRACE_SCHEDULER_ROLE_ARN": given}

    assert AwsConfig.from_environment(environ).scheduler_role == role


def test_endpoints_can_be_ignored_as_botocore_ignores_them() -> None:
    environ = {"AWS_ENDPOINT_URL": EMULATOR, "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"}

    assert AwsConfig.from_environment(environ).endpoints == {}


def test_aws_itself_needs_no_endpoint() -> None:
    assert AwsConfig.from_environment({"AWS_REGION": "eu-west-1"}).endpoints == {}


@pytest.mark.parametrize(
    ("environ", "endpoint"),
    [
        ({"USE_LOCALSTACK": "1"}, "http://localhost:4566"),
        ({"LOCALSTACK_HOST": "127.0.0.1:4567"}, "http://127.0.0.1:4567"),
    ],
)
def test_localstack_gives_its_endpoint_by_its_own_variables(
    environ: dict[str, str], endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("localstack_client", reason="needs the extra `localstack`")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)

    config = AwsConfig.from_environment(environ)

    assert set(config.endpoints.values()) == {endpoint}


def test_an_endpoint_by_name_goes_before_localstack() -> None:
    config = AwsConfig.from_environment({"USE_LOCALSTACK": "1", "AWS_ENDPOINT_URL": EMULATOR})

    assert config.endpoints == EVERYWHERE


@pytest.mark.parametrize("off", ["0", "false", "no", ""])
def test_localstack_can_be_switched_off(off: str) -> None:
    assert AwsConfig.from_environment({"USE_LOCALSTACK": off}).endpoints == {}


def test_localstack_without_its_client_library_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "localstack_client.config", None)

    with pytest.raises(ConfigurationError, match=r"pip install 'headrace\[localstack\]'"):
        AwsConfig.from_environment({"USE_LOCALSTACK": "1"})


@pytest.mark.parametrize(
    ("endpoint", "local"),
    [
        ("http://127.0.0.1:4566", True),
        ("http://localhost:4566", True),
        ("http://emulator.internal:4566", True),
        ("https://sqs.eu-west-1.amazonaws.com", False),
        ("https://vpce-1a2b.sqs.eu-west-1.vpce.amazonaws.com", False),
    ],
)
def test_a_local_endpoint_is_one_outside_the_domains_of_aws(endpoint: str, local: bool) -> None:
    assert AwsConfig(endpoints={"sqs": endpoint}).is_local("sqs") is local


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which nobody has set up AWS."""
    for variable in (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_PROFILE",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_ENDPOINT_URL",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    ):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")


@pytest.mark.usefixtures("nobody")
async def test_an_emulator_needs_neither_region_nor_credentials() -> None:
    async with open_clients(AwsConfig(endpoints=EVERYWHERE)) as clients:
        assert clients.sqs.meta.region_name == "us-east-1"


@pytest.mark.usefixtures("nobody")
async def test_aws_without_a_region_says_which_variable_to_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    with pytest.raises(ConfigurationError, match="No AWS region is set: set AWS_REGION"):
        async with open_ports(AwsConfig()):
            pytest.fail("ports opened on no region")
