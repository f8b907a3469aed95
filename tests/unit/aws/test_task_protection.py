"""What is asked of the agent of ECS, and what its answers become."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import orjson
import pytest
from aiohttp import web

from headrace.aws.task_protection import TaskProtection
from headrace.errors import CloudError, ConfigurationError, Refused, Throttled, Unreachable

ARN = "arn:aws:ecs:eu-west-1:123456789012:task/shop/0123456789abcdef"
PATH = "/api/0123/task-protection/v1/state"


@dataclass(slots=True)
class Agent:
    """The agent of ECS on this machine. It does what it is asked, or answers as it is told."""

    uri: str = ""
    status: int = 200
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str, Any]] = field(default_factory=list)
    silent: bool = False
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, status: int, body: object) -> None:
        self.status = status
        self.body = body if isinstance(body, bytes) else orjson.dumps(body)

    def error(self, status: int, code: str, message: str = "said ECS") -> None:
        self.tell(status, {"error": {"Arn": ARN, "Code": code, "Message": message}})

    async def answer(self, request: web.Request) -> web.Response:
        asked = orjson.loads(await request.read())
        self.asked.append((request.method, request.path, asked))
        if self.silent:
            await self.over.wait()
        body = orjson.dumps(granted(asked)) if self.body is None else self.body
        return web.Response(status=self.status, body=body, headers=self.headers)


def granted(asked: dict[str, Any]) -> dict[str, Any]:
    enabled = asked["ProtectionEnabled"]
    until = "2026-01-01T00:10:00Z" if enabled else None
    return {
        "protection": {"ExpirationDate": until, "ProtectionEnabled": enabled, "TaskArn": ARN},
    }


@pytest.fixture
async def agent() -> AsyncIterator[Agent]:
    agent = Agent()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", agent.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        agent.uri = f"http://127.0.0.1:{runner.addresses[0][1]}/api/0123"
        yield agent
    finally:
        agent.over.set()
        await runner.cleanup()


async def raised(agent: Agent) -> CloudError:
    with pytest.raises(CloudError) as caught:
        await TaskProtection(agent.uri).protect(10)
    return caught.value


async def test_to_protect_is_one_put_with_the_minutes(agent: Agent) -> None:
    await TaskProtection(agent.uri).protect(10)
    assert agent.asked == [("PUT", PATH, {"ProtectionEnabled": True, "ExpiresInMinutes": 10})]


async def test_to_release_is_one_put_without_minutes(agent: Agent) -> None:
    await TaskProtection(agent.uri).release()
    assert agent.asked == [("PUT", PATH, {"ProtectionEnabled": False})]


async def test_a_slash_at_the_end_of_the_uri_makes_no_difference(agent: Agent) -> None:
    await TaskProtection(f"{agent.uri}/").release()
    assert [path for _, path, _ in agent.asked] == [PATH]


@pytest.mark.parametrize("minutes", [1, 2_880])
async def test_the_shortest_and_the_longest_protection_are_asked_for(
    agent: Agent, minutes: int
) -> None:
    await TaskProtection(agent.uri).protect(minutes)
    assert agent.asked[0][2]["ExpiresInMinutes"] == minutes


@pytest.mark.parametrize("minutes", [0, -1, 2_881])
async def test_minutes_that_ecs_does_not_take_are_not_asked_for(agent: Agent, minutes: int) -> None:
    with pytest.raises(ConfigurationError, match="ask for 1 to 2880"):
        await TaskProtection(agent.uri).protect(minutes)
    assert agent.asked == []


@pytest.mark.parametrize("environ", [{}, {"ECS_AGENT_URI": ""}, {"ECS_AGENT_URI": " "}])
def test_elsewhere_than_on_ecs_there_is_no_protection(environ: dict[str, str]) -> None:
    assert TaskProtection.from_environment(environ) is None


async def test_on_ecs_the_agent_is_named_by_the_environment(agent: Agent) -> None:
    protection = TaskProtection.from_environment({"ECS_AGENT_URI": agent.uri})
    assert protection is not None
    await protection.release()
    assert len(agent.asked) == 1


async def test_a_proxy_for_everything_else_is_not_asked(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    await TaskProtection(agent.uri).release()
    assert len(agent.asked) == 1


@pytest.mark.parametrize("code", ["AccessDeniedException", "AccessDenied"])
async def test_a_role_without_the_right_is_told_which_one_it_needs(agent: Agent, code: str) -> None:
    agent.error(400, code, "User: x is not authorized.")
    error = await raised(agent)
    assert type(error) is Refused
    assert error.code == code
    assert error.operation == "UpdateTaskProtection"
    assert "not authorized. Give the task definition a task role" in str(error)
    assert "ecs:UpdateTaskProtection" in str(error)


async def test_a_task_without_a_service_is_told_so(agent: Agent) -> None:
    agent.tell(200, {"failure": {"Arn": ARN, "Detail": None, "Reason": "TASK_NOT_VALID"}})
    error = await raised(agent)
    assert type(error) is Refused
    assert error.code == "TASK_NOT_VALID"
    assert "Only a task of an ECS service can be protected" in str(error)


async def test_any_other_failure_is_refused_with_its_reason_and_detail(agent: Agent) -> None:
    agent.tell(200, {"failure": {"Arn": ARN, "Detail": "Too new.", "Reason": "ODD"}})
    error = await raised(agent)
    assert type(error) is Refused
    assert error.code == "ODD"
    assert "(ODD: Too new)" in str(error)


@pytest.mark.parametrize("status", [400, 429, 500])
async def test_too_many_calls_are_throttled(agent: Agent, status: int) -> None:
    agent.error(status, "ThrottlingException", "Rate exceeded")
    error = await raised(agent)
    assert type(error) is Throttled
    assert error.code == "ThrottlingException"


async def test_too_many_calls_to_the_agent_itself_are_throttled(agent: Agent) -> None:
    agent.tell(429, b"You have reached maximum request limit.")
    error = await raised(agent)
    assert type(error) is Throttled
    assert error.code == "HTTP 429"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (500, "ServerException"),
        (504, "RequestCanceled"),
        (200, "RequestCanceled"),
        (400, "ServerException"),
        (503, "Odd"),
    ],
)
async def test_an_agent_that_cannot_reach_ecs_is_no_usable_answer(
    agent: Agent, status: int, code: str
) -> None:
    agent.error(status, code)
    error = await raised(agent)
    assert type(error) is Unreachable
    assert error.code == code


@pytest.mark.parametrize("code", ["InvalidParameterException", "ClientException", "Odd"])
async def test_any_other_error_is_refused(agent: Agent, code: str) -> None:
    agent.error(400, code, "Not so.")
    error = await raised(agent)
    assert type(error) is Refused
    assert f"with {code}: Not so. " in str(error)


async def test_an_error_that_is_known_is_no_old_agent(agent: Agent) -> None:
    agent.error(404, "ResourceNotFoundException", "Failed to find a task for the request")
    error = await raised(agent)
    assert type(error) is Refused
    assert "1.65.0" not in str(error)


async def test_an_agent_too_old_for_protection_is_told_apart(agent: Agent) -> None:
    agent.tell(404, b"404 page not found")
    error = await raised(agent)
    assert type(error) is Refused
    assert "1.65.0" in str(error)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        {"protection": None},
        {"protection": {"TaskArn": ARN}},
        {"protection": {"TaskArn": ARN, "ProtectionEnabled": False}},
    ],
)
async def test_an_answer_that_does_not_say_it_was_done_is_not_usable(
    agent: Agent, body: object
) -> None:
    agent.tell(200, body)
    assert type(await raised(agent)) is Unreachable


async def test_a_redirect_is_refused_and_not_followed(agent: Agent) -> None:
    agent.tell(307, b"")
    agent.headers["Location"] = f"{agent.uri}/elsewhere"
    error = await raised(agent)
    assert type(error) is Refused
    assert error.code == "HTTP 307"
    assert len(agent.asked) == 1


async def test_an_agent_that_is_not_there_is_unreachable() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{held.getsockname()[1]}"
        with pytest.raises(Unreachable, match="at ECS_AGENT_URI, gave no answer"):
            await TaskProtection(gone).release()


async def test_an_agent_that_stays_silent_is_unreachable(agent: Agent) -> None:
    agent.silent = True
    protection = TaskProtection(agent.uri, timeout=timedelta(milliseconds=50))
    with pytest.raises(Unreachable) as caught:
        await protection.release()
    assert "TimeoutError" in caught.value.code


@pytest.mark.parametrize("uri", ["agent", "ftp://127.0.0.1/api", "http://"])
async def test_an_agent_whose_uri_is_none_is_refused(uri: str) -> None:
    with pytest.raises(Refused, match="ECS_AGENT_URI is not an HTTP URL"):
        await TaskProtection(uri).release()
