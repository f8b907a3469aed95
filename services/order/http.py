"""Orders over HTTP: taking them as commands, and telling how they stand.

    uvicorn services.order.http:app

`create_app` says what it needs, so a test gives it ports in memory.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from http import HTTPStatus
from typing import Any, TypeAlias

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from headrace.aws.client import open_ports
from headrace.client import read, send
from headrace.errors import CloudError, DispatchError, TooLarge
from headrace.ports import Ports
from schemas.order import PlaceOrder
from schemas.values import NAME_PATTERN, Currency, Customer, Money, OrderId, OrderLines
from services.order.app import order as service
from services.order.model import Order, OrderStatus

logger = logging.getLogger(__name__)

OpenPorts: TypeAlias = Callable[[], AbstractAsyncContextManager[Ports]]

PROBLEM = "application/problem+json"
"""RFC 9457."""
IDEMPOTENCY_HEADER = "Idempotency-Key"
_KEY_CHARACTERS = 128
_RETRY_SECONDS = "5"
_NOT_SERVED = "There is nothing here but POST /orders, GET /orders/{id} and GET /healthz."
_NOT_READ = "The order could not be read. Ask again in a few seconds."
_NOT_SENT = f"The order was not taken. Send it again, under the {IDEMPOTENCY_HEADER} it had if any."


class OrderView(BaseModel):
    """An order as its customer may see it."""

    model_config = ConfigDict(frozen=True)

    order_id: OrderId
    status: OrderStatus
    reason: str | None
    customer: Customer
    lines: OrderLines
    total: Money
    currency: Currency

    @classmethod
    def of(cls, order: Order) -> OrderView:
        return cls(total=order.total, **order.model_dump())


def create_app(ports: OpenPorts = open_ports) -> Starlette:
    """The application. `ports` are opened when it starts and closed when it ends."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with ports() as opened:
            app.state.ports = opened
            yield

    return Starlette(
        routes=[
            Route("/orders", place_order, methods=["POST"]),
            Route("/orders/{order_id}", get_order, methods=["GET"], name="order"),
            Route("/healthz", healthz, methods=["GET"]),
        ],
        exception_handlers={
            HTTPException: _http_problem,
            ValidationError: _content_problem,
            TooLarge: _size_problem,
            CloudError: _cloud_problem,
            DispatchError: _cloud_problem,
        },
        lifespan=lifespan,
    )


async def place_order(request: Request) -> Response:
    """Take an order: 202 once it is in the queue, and where to ask how it stands.

    A repeat under the same `Idempotency-Key` is one order. Without the header it is so, too,
    if it says the same; but it is then recognised later and at more cost.
    """
    command = PlaceOrder.model_validate_json(await request.body())
    key = _idempotency_key(request)
    # Within its order, so that nobody's key can swallow somebody else's order.
    ids = None if key is None else [f"{command.order_id}/{key}"]
    await send(request.app.state.ports, [command], bus=service.bus, ids=ids)
    return JSONResponse(
        {"order_id": command.order_id},
        status_code=HTTPStatus.ACCEPTED,
        headers={"Location": request.url_for("order", order_id=command.order_id).path},
    )


async def get_order(request: Request) -> Response:
    """How an order stands at this moment."""
    order_id: str = request.path_params["order_id"]
    possible = [order_id] if re.fullmatch(NAME_PATTERN, order_id) else []
    found = await read(request.app.state.ports, Order, possible, table=service.name)
    order = next(iter(found), None)
    if order is None:
        raise HTTPException(
            HTTPStatus.NOT_FOUND,
            f"There is no order {order_id}. If it was placed a moment ago, ask again.",
        )
    view = OrderView.of(order)
    return Response(view.model_dump_json(), media_type="application/json")


async def healthz(request: Request) -> Response:
    return JSONResponse({"status": "ok"})


def _idempotency_key(request: Request) -> str | None:
    key = request.headers.get(IDEMPOTENCY_HEADER)
    if key is None or (0 < len(key) <= _KEY_CHARACTERS and key.isascii() and key.isprintable()):
        return key
    raise HTTPException(
        HTTPStatus.BAD_REQUEST,
        f"{IDEMPOTENCY_HEADER} must have 1 to {_KEY_CHARACTERS} printable ASCII characters.",
    )


# --- problems --------------------------------------------------------------------------


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    # Starlette's own say no more than the status does.
    detail = _NOT_SERVED if error.detail == status.phrase else error.detail
    return _problem(status, detail, headers=error.headers)


async def _content_problem(request: Request, error: Exception) -> Response:
    """400 for what is not JSON, 422 for JSON that is no order."""
    assert isinstance(error, ValidationError)
    findings = error.errors(include_url=False, include_input=False, include_context=False)
    if findings[0]["type"] == "json_invalid":
        return _problem(HTTPStatus.BAD_REQUEST, f"The body is not JSON: {findings[0]['msg']}.")
    errors = [
        {"field": ".".join(map(str, finding["loc"])), "detail": f"{finding['msg']}."}
        for finding in findings
    ]
    fields = ", ".join(error["field"] for error in errors if error["field"])
    what = f"see {fields}" if fields else findings[0]["msg"]
    return _problem(
        HTTPStatus.UNPROCESSABLE_ENTITY, f"The body is no order: {what}.", errors=errors
    )


async def _size_problem(request: Request, error: Exception) -> Response:
    return _problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, str(error))


async def _cloud_problem(request: Request, error: Exception) -> Response:
    """What AWS said stays in the log; the caller is told what to do."""
    logger.error("%s %s failed: %s", request.method, request.url.path, error)
    return _problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        _NOT_READ if request.method == "GET" else _NOT_SENT,
        headers={"Retry-After": _RETRY_SECONDS},
    )


def _problem(
    status: HTTPStatus,
    detail: str,
    *,
    errors: list[dict[str, str]] | None = None,
    headers: Any = None,
) -> Response:
    content: dict[str, Any] = {"title": status.phrase, "status": status.value, "detail": detail}
    if errors:
        content["errors"] = errors
    return JSONResponse(content, status_code=status, headers=headers, media_type=PROBLEM)


app = create_app()
