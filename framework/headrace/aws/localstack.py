"""Where LocalStack listens, as its own client library tells it."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.errors import ConfigurationError

_OFF = frozenset({"", "0", "false", "no", "off"})


def wanted(environ: Mapping[str, str]) -> bool:
    """Whether the environment asks for LocalStack: `LOCALSTACK_HOST` or `USE_LOCALSTACK`."""
    return bool(environ.get("LOCALSTACK_HOST", "").strip()) or (
        environ.get("USE_LOCALSTACK", "").strip().lower() not in _OFF
    )


def endpoint(service: str, environ: Mapping[str, str]) -> str | None:
    """The URL of one service (`sqs`, `events`, `dynamodb`), or `None` if LocalStack is not asked
    for. Raises `ConfigurationError` when localstack-client is not installed."""
    if not wanted(environ):
        return None
    try:
        from localstack_client.config import (  # type: ignore[import-untyped]  # ships no types
            get_service_endpoint,
        )
    except ImportError as error:
        raise ConfigurationError(
            "LOCALSTACK_HOST or USE_LOCALSTACK is set, but localstack-client is not installed: "
            "run `pip install 'headrace[localstack]'`, or set AWS_ENDPOINT_URL instead."
        ) from error
    url: str | None = get_service_endpoint(
        service, localstack_host=environ.get("LOCALSTACK_HOST") or "localhost"
    )
    return url
