"""Secrets, on an emulator of Secrets Manager."""

from __future__ import annotations

import pytest

from headrace.aws.client import open_client
from headrace.aws.config import AwsConfig
from headrace.aws.secrets import secret
from headrace.errors import ConfigurationError, NotProvisioned

pytestmark = pytest.mark.emulator


@pytest.fixture
def environ(ministack_url: str) -> dict[str, str]:
    return {"AWS_ENDPOINT_URL": ministack_url, "AWS_REGION": "us-east-1"}


async def created(environ: dict[str, str], name: str, **value: object) -> None:
    async with open_client("secretsmanager", AwsConfig.from_environment(environ)) as client:
        await client.create_secret(Name=name, **value)


async def test_a_secret_is_read_where_its_variable_says(environ: dict[str, str]) -> None:
    await created(environ, "prod/notification/MAIL_URL", SecretString="smtp://mail.example")

    found = await secret("MAIL_URL", {**environ, "MAIL_URL_SECRET": "prod/notification/MAIL_URL"})

    assert found == "smtp://mail.example"


async def test_a_secret_that_is_not_there_is_told_with_how_to_create_it(
    environ: dict[str, str],
) -> None:
    with pytest.raises(NotProvisioned, match=r"There is no secret 'prod/none' in .* create-secret"):
        await secret("MAIL_URL", {**environ, "MAIL_URL_SECRET": "prod/none"})


async def test_a_binary_secret_is_told_to_become_text(environ: dict[str, str]) -> None:
    await created(environ, "prod/binary", SecretBinary=b"\x00\x01")

    with pytest.raises(ConfigurationError, match="'prod/binary' is binary: give it a text"):
        await secret("KEY", {**environ, "KEY_SECRET": "prod/binary"})


async def test_on_a_laptop_the_variable_itself_is_the_secret() -> None:
    assert await secret("MAIL_URL", {"MAIL_URL": "smtp://127.0.0.1"}) == "smtp://127.0.0.1"


@pytest.mark.parametrize("environ", [{}, {"MAIL_URL": ""}])
async def test_a_secret_that_nobody_set_is_none(environ: dict[str, str]) -> None:
    assert await secret("MAIL_URL", environ) is None


async def test_a_secret_that_also_stands_in_the_environment_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="unset MAIL_URL"):
        await secret("MAIL_URL", {"MAIL_URL": "smtp://x", "MAIL_URL_SECRET": "prod/mail"})
