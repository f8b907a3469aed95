"""Protection of an ECS task from scale-in, as the agent of its container gives it.

Source: "Amazon ECS task scale-in protection endpoint" in the developer guide of ECS.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

import orjson

from headrace.errors import CloudError, ConfigurationError, Refused, Throttled, Unreachable
from headrace.text import shown

MAX_MINUTES: Final = 2_880
"""The longest protection ECS gives at once: 48 hours. The shortest is a minute."""
TIMEOUT: Final = timedelta(seconds=5)
"""For one request, as a whole. The agent itself waits 4 s for ECS."""

OPERATION: Final = "UpdateTaskProtection"

_PATH: Final = "/task-protection/v1/state"
_ROLE: Final = (
    "Give the task definition a task role (not only an execution role) whose policy allows "
    f"ecs:{OPERATION}"
)
_ADVICE: Final[Mapping[str, str]] = {
    "AccessDenied": _ROLE,
    "AccessDeniedException": _ROLE,
    "TASK_NOT_VALID": (
        "Only a task of an ECS service can be protected: run the worker as a service, or switch "
        "scale-in protection off"
    ),
}
_NOT_KNOWN: Final = ("ServerException", "RequestCanceled")
"""Codes of the agent for no usable answer from ECS, whatever the status."""
_OLD_AGENT: Final = (
    "Use an agent that knows it (1.65.0, or Fargate platform 1.4.0), or switch scale-in "
    "protection off"
)
_ASK_ECS: Final = "See the API failure reasons of ECS for what to change"
_AGAIN: Final = "It may or may not have happened; it can be tried again"


class TaskProtection:
    """Protects the ECS task this process runs in from scale-in, and from being replaced by a
    deployment.

    Both methods raise `Refused` (code: the one of ECS, as `AccessDeniedException`, or the reason
    of its failure, as `TASK_NOT_VALID`), `Throttled`, or `Unreachable`. A call that is cancelled
    may or may not have had its effect.
    """

    def __init__(self, agent: str, *, timeout: timedelta = TIMEOUT) -> None:
        """`agent` is the URI in ECS_AGENT_URI, which ECS sets in every container."""
        self._url = agent.rstrip("/") + _PATH
        self._timeout = timeout

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> TaskProtection | None:
        """The protection of this task; `None` without ECS_AGENT_URI, so not on ECS."""
        agent = environ.get("ECS_AGENT_URI", "").strip()
        return cls(agent) if agent else None

    async def protect(self, minutes: int) -> None:
        """Protect the task for so many minutes from now, whatever held before.

        Raises `ConfigurationError` if they are not from 1 to 2880.
        """
        if not 1 <= minutes <= MAX_MINUTES:
            raise ConfigurationError(
                f"A task cannot be protected for {minutes} minutes: ask for 1 to {MAX_MINUTES}, "
                "and ask again before they are over."
            )
        await self._put({"ProtectionEnabled": True, "ExpiresInMinutes": minutes})

    async def release(self) -> None:
        """End the protection at once. Does nothing to a task that is not protected."""
        await self._put({"ProtectionEnabled": False})

    async def _put(self, asked: Mapping[str, Any]) -> None:
        status, body = await _answered(self._url, orjson.dumps(asked), self._timeout)
        answer = _object(body)
        if "failure" in answer:
            raise _failed(_object(answer["failure"]))
        if "error" in answer or status != 200:
            raise _refused(status, _object(answer.get("error")))
        granted = _object(answer.get("protection"))
        if granted.get("ProtectionEnabled") is not asked["ProtectionEnabled"]:
            raise Unreachable(
                f"The agent of ECS answered {OPERATION} without saying that it did what was "
                f"asked. {_AGAIN}.",
                operation=OPERATION,
            )


async def _answered(url: str, body: bytes, within: timedelta) -> tuple[int, bytes]:
    """The status and the body of the answer to a PUT.

    By aiohttp, which aiobotocore brings along: a request in a thread could not be cancelled, and
    urllib would send it to the proxy that HTTP_PROXY names.
    """
    from aiohttp import (
        ClientError,
        ClientSession,
        ClientTimeout,
        InvalidURL,
        NonHttpUrlClientError,
    )

    timeout = ClientTimeout(total=within.total_seconds())
    headers = {"Content-Type": "application/json"}
    try:
        async with (
            ClientSession(timeout=timeout) as session,
            session.put(url, data=body, headers=headers, allow_redirects=False) as response,
        ):
            return response.status, await response.read()
    except (InvalidURL, NonHttpUrlClientError) as error:
        raise Refused(
            "ECS_AGENT_URI is not an HTTP URL: leave it as ECS sets it, or unset it elsewhere.",
            operation=OPERATION,
            code="InvalidURL",
        ) from error
    except (ClientError, OSError) as error:
        raise Unreachable(
            f"The agent of ECS, at ECS_AGENT_URI, gave no answer to {OPERATION} "
            f"({type(error).__name__}). {_AGAIN}.",
            operation=OPERATION,
            code=type(error).__name__,
        ) from error


def _failed(failure: Mapping[str, Any]) -> Refused:
    reason = str(failure.get("Reason") or "no reason given")
    detail = f": {_clause(failure['Detail'])}" if failure.get("Detail") else ""
    return Refused(
        f"ECS did not change the protection of this task ({reason}{detail}). "
        f"{_ADVICE.get(reason, _ASK_ECS)}.",
        operation=OPERATION,
        code=reason,
    )


def _refused(status: int, error: Mapping[str, Any]) -> CloudError:
    code = str(error.get("Code") or f"HTTP {status}")
    said = f": {_clause(error['Message'])}" if error.get("Message") else ""
    kind, advice = _judged(status, code, known=bool(error))
    return kind(
        f"The agent of ECS refused {OPERATION} with {code}{said}. {advice}.",
        operation=OPERATION,
        code=code,
    )


def _judged(status: int, code: str, *, known: bool) -> tuple[type[CloudError], str]:
    if status == 429 or "Throttl" in code:
        return Throttled, "Try again later, or less often"
    if status >= 500 or code in _NOT_KNOWN:
        return Unreachable, _AGAIN
    if status == 404 and not known:
        return Refused, _OLD_AGENT
    return Refused, _ADVICE.get(code, _ASK_ECS)


def _object(value: object) -> Mapping[str, Any]:
    """A JSON object, parsed or not; an empty one for whatever else it is."""
    if isinstance(value, bytes):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            return {}
    return value if isinstance(value, dict) else {}


def _clause(said: object) -> str:
    return shown(str(said)).strip().rstrip(".")
