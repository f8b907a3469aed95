"""What nobody may read in a function's or a task's settings: from Secrets Manager."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from headrace.aws.client import open_client
from headrace.aws.config import AwsConfig, place
from headrace.aws.faults import translated
from headrace.errors import ConfigurationError, NotProvisioned

SUFFIX: Final = "_SECRET"


async def secret(name: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """The secret that a service knows as `name`, such as `MAIL_URL`; `None` if there is none.

    Where the variable `<name>_SECRET` names one in Secrets Manager, by its name or ARN, it is read
    there, with one call. Otherwise it is the variable `<name>` itself, as on a laptop. Call it
    where resources are opened, so that it is read once for each process.

    Raises `ConfigurationError` when both are set, or the secret is none of text, `NotProvisioned`
    when it is not there, and `CloudError` when it cannot be read.
    """
    id, value = environ.get(f"{name}{SUFFIX}", "").strip(), environ.get(name)
    if id and value:
        raise ConfigurationError(
            f"{name} and {name}{SUFFIX} are both set: unset {name}, and its value is in nobody's "
            "sight, or the other if this is a laptop."
        )
    return await _read(id, AwsConfig.from_environment(environ)) if id else value or None


async def _read(id: str, config: AwsConfig) -> str:
    async with open_client("secretsmanager", config) as client:
        try:
            with translated("GetSecretValue", f"secret '{id}'", place(client)):
                answer = await client.get_secret_value(SecretId=id)
        except NotProvisioned as error:
            raise NotProvisioned(
                f"There is no secret '{id}' in {place(client)}, or it has no value yet: create it "
                f"with `aws secretsmanager create-secret --name {id} --secret-string …`.",
                operation=error.operation,
                code=error.code,
            ) from error
    text = answer.get("SecretString")
    if not isinstance(text, str):
        raise ConfigurationError(
            f"The secret '{id}' is binary: give it a text, with `aws secretsmanager "
            f"put-secret-value --secret-id {id} --secret-string …`."
        )
    return text
