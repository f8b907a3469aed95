"""A network between a service and AWS that loses answers, or is refused service, when told to."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from enum import Enum
from typing import Final, NamedTuple, TypeAlias

from aiohttp import ClientSession, DummyCookieJar, web
from multidict import CIMultiDict

HOST: Final = "127.0.0.1"
_HOP_BY_HOP: Final = ("Connection", "Keep-Alive", "Transfer-Encoding", "Content-Length", "Host")


class Fault(Enum):
    """What becomes of one request."""

    DROP = "it is carried out, and the connection ends without an answer"
    HOLD = "it is carried out, and there is no answer for as long as the client waits"
    UNAVAILABLE = "it is not carried out, and answered with 503"
    THROTTLE = "it is not carried out, and answered with a throttling error"

    def __str__(self) -> str:
        return self.name.lower()


Decide: TypeAlias = Callable[[str], Fault | None]
"""The fault of the next request, by the name of its operation."""


class _Refusal(NamedTuple):
    status: int
    code: str


_REFUSALS: Final[Mapping[Fault, _Refusal]] = {
    Fault.UNAVAILABLE: _Refusal(503, "ServiceUnavailable"),
    Fault.THROTTLE: _Refusal(400, "ThrottlingException"),
}


def no_fault(operation: str) -> Fault | None:
    return None


class FaultyProxy:
    """Forwards what AWS clients send, by the prefix of its `X-Amz-Target`, and lets `decide` say
    what goes wrong. `requests` counts what came, and `faults` what went wrong, by operation; a
    held answer counts once its client has given up.
    """

    def __init__(self, session: ClientSession, routes: Mapping[str, str]) -> None:
        self.url = ""
        self.decide: Decide = no_fault
        self.requests: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self._session = session
        self._routes = routes

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        service, _, operation = request.headers["X-Amz-Target"].partition(".")
        self.requests[operation] += 1
        fault = self.decide(operation)
        if fault is not None and fault in _REFUSALS:
            self.faults[operation] += 1
            return _refused(_REFUSALS[fault])
        answer = await self._forwarded(request, self._routes[service])
        if fault is Fault.DROP:
            self.faults[operation] += 1
            _hang_up(request)
        if fault is Fault.HOLD:
            await self._held(operation)
        return answer

    async def _forwarded(self, request: web.BaseRequest, url: str) -> web.Response:
        async with self._session.request(
            request.method,
            url + request.path_qs,
            data=await request.read(),
            headers=_end_to_end(request.headers),
        ) as answer:
            return web.Response(
                status=answer.status,
                body=await answer.read(),
                headers=_end_to_end(answer.headers),
            )

    async def _held(self, operation: str) -> None:
        try:
            # The server cancels this once the client has closed its connection.
            await asyncio.Event().wait()
        finally:
            self.faults[operation] += 1


def _end_to_end(headers: Mapping[str, str]) -> CIMultiDict[str]:
    kept = CIMultiDict(headers)
    for name in _HOP_BY_HOP:
        kept.popall(name, None)
    return kept


def _hang_up(request: web.BaseRequest) -> None:
    assert request.transport is not None
    request.transport.abort()


def _refused(refusal: _Refusal) -> web.Response:
    return web.Response(
        status=refusal.status,
        text=json.dumps({"__type": refusal.code, "message": "Not now."}),
        content_type="application/x-amz-json-1.0",
    )


@asynccontextmanager
async def faulty_proxy(routes: Mapping[str, str]) -> AsyncIterator[FaultyProxy]:
    """A proxy on a free port, without faults at first; `routes` are the URLs by the prefix of
    the target, such as `AmazonSQS`."""
    async with ClientSession(cookie_jar=DummyCookieJar(), auto_decompress=False) as session:
        proxy = FaultyProxy(session, routes)
        server = web.Server(proxy.answer, handler_cancellation=True)
        runner = web.ServerRunner(server, shutdown_timeout=1)
        await runner.setup()
        try:
            await web.TCPSite(runner, HOST, 0).start()
            host, port = runner.addresses[0][:2]
            proxy.url = f"http://{host}:{port}"
            yield proxy
        finally:
            await runner.cleanup()
