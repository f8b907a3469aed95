"""The same application behind a function URL or an API Gateway."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

from mangum import Mangum
from mangum.types import LambdaContext, LambdaEvent
from starlette.applications import Starlette

from services.order.http import PROBLEM, app


class HttpHandler:
    """What Lambda calls with an HTTP request.

    The application starts at the first request and stays as long as the execution environment,
    on one event loop. Mangum by itself would start and end it around every request.
    """

    def __init__(self, app: Starlette) -> None:
        self._app = app
        self._runner: asyncio.Runner | None = None
        self._open = AsyncExitStack()
        self._answer: Mangum | None = None

    def __call__(self, event: LambdaEvent, context: LambdaContext) -> dict[str, Any]:
        runner = self._runner = self._runner or asyncio.Runner()
        if self._answer is None:
            self._answer = self._start(runner)
        answer = self._answer(event, context)
        # The environment may be frozen from the answer on.
        runner.run(self._app.state.service.flush())
        return answer

    def close(self) -> None:
        """End the application; the next request starts it afresh. For tests: Lambda itself
        never says goodbye."""
        if self._runner is not None:
            self._runner.run(self._open.aclose())
            self._runner.close()
        self._runner = self._answer = None

    def _start(self, runner: asyncio.Runner) -> Mangum:
        lifespan = self._app.router.lifespan_context(self._app)
        runner.run(self._enter(lifespan))
        # Mangum runs every request on the loop that is set, and the clients live on this one.
        asyncio.set_event_loop(runner.get_loop())
        return Mangum(
            self._app,
            lifespan="off",
            text_mime_types=["text/", "application/json", PROBLEM],
        )

    async def _enter(self, lifespan: AbstractAsyncContextManager[Any]) -> None:
        await self._open.enter_async_context(lifespan)


handler = HttpHandler(app)
