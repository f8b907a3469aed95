"""What is answered to a request: AWS's operations, and the control plane."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import orjson

from benchmarks.side import work
from benchmarks.side.server.counts import Counts
from benchmarks.side.server.dynamodb import DynamoDb
from benchmarks.side.server.events import EventBridge
from benchmarks.side.server.faults import Fault
from benchmarks.side.server.http import Request, Response
from benchmarks.side.server.settings import Settings
from benchmarks.side.server.sqs import Sqs

_IDENTITY: Final = f"""<GetCallerIdentityResponse
 xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>
<Arn>arn:aws:iam::{work.ACCOUNT}:user/bench</Arn><UserId>AIDABENCH</UserId>
<Account>{work.ACCOUNT}</Account></GetCallerIdentityResult></GetCallerIdentityResponse>""".encode()


class World:
    """Everything from one reset to the next."""

    def __init__(self, settings: Settings, endpoint: str) -> None:
        self.settings = settings
        self.counts = Counts(settings)
        self.sqs = Sqs(settings, self.counts, endpoint)
        self.operations: dict[str, Callable[[dict[str, Any]], Any]] = {
            **self.sqs.operations,
            **DynamoDb(settings, self.counts).operations,
            **EventBridge(self.counts).operations,
        }

    def close(self) -> None:
        self.sqs.backlog.close()
        self.counts.close()


class App:
    """Answers requests; `endpoint` is its own address, which stands in the URLs of queues."""

    def __init__(self) -> None:
        self.endpoint = ""
        self._world = World(Settings(), "")

    def answer(self, request: Request) -> Response | Awaitable[Response]:
        if request.target:
            answer = self._aws(request)
            latency = self._world.settings.latency
            return _late(answer, latency) if latency else answer
        if request.path.startswith("/bench/"):
            return self._control(request)
        if b"Action=GetCallerIdentity" in request.body:
            self._world.counts.called("GetCallerIdentity", len(request.body))
            return Response(200, _IDENTITY, b"text/xml")
        return _refused(Fault("UnknownOperationException", f"{request.path} is not known here."))

    # --- AWS ---

    def _aws(self, request: Request) -> Response | Awaitable[Response]:
        world, name = self._world, request.target.rpartition(".")[2]
        operation = world.operations.get(name)
        if operation is None:
            return _refused(Fault("UnknownOperationException", f"{name} is not known here."))
        world.counts.called(name, len(request.body))
        try:
            answer = operation(orjson.loads(request.body or b"{}"))
        except Fault as fault:
            return _refused(fault)
        except KeyError as error:
            return _refused(Fault("ValidationException", f"{name} needs {error}."))
        world.counts.told()
        return _answered(answer) if isinstance(answer, dict) else _finished(answer, world)

    # --- the control plane ---

    def _control(self, request: Request) -> Response | Awaitable[Response]:
        parts = urlsplit(request.path)
        try:
            match parts.path:
                case "/bench/reset":
                    return self._reset(orjson.loads(request.body or b"{}"))
                case "/bench/recount":
                    self._world.counts.clear()
                    return _answered(self._world.counts.as_json())
                case "/bench/counts":
                    return _answered(self._world.counts.as_json())
                case "/bench/until":
                    ((name, reached),) = parse_qsl(parts.query)
                    self._world.counts.number(name)
                    return _reached(self._world, name, int(reached))
                case path:
                    return _refused(Fault("UnknownOperationException", f"No {path} here."))
        except ValueError as error:
            return _refused(Fault("ValidationException", str(error)))

    def _reset(self, given: dict[str, Any]) -> Response:
        settings = Settings.of(given)
        before, self._world = self._world, World(settings, self.endpoint)
        before.close()
        return _answered(self._world.counts.as_json())


def _answered(answer: dict[str, Any]) -> Response:
    return Response(200, orjson.dumps(answer))


def _refused(fault: Fault) -> Response:
    return Response(400, orjson.dumps(fault.as_json()))


async def _finished(answer: Awaitable[dict[str, Any]], world: World) -> Response:
    found = await answer
    world.counts.told()
    return _answered(found)


async def _late(answer: Response | Awaitable[Response], seconds: float) -> Response:
    await asyncio.sleep(seconds)
    return answer if isinstance(answer, Response) else await answer


async def _reached(world: World, name: str, number: int) -> Response:
    await world.counts.until(name, number)
    return _answered(world.counts.as_json())
