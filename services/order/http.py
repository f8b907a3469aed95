"""Orders over HTTP: taking them, and telling how they stand.

    uvicorn services.order.http:app

`create_app` says what it needs, so a test gives it ports in memory.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from hashlib import sha256
from http import HTTPStatus
from typing import Any, Final, TypeAlias

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random

from headrace.aws.client import open_ports
from headrace.connection import Connection, connect
from headrace.errors import AlreadyDone, CloudError, Conflict, KeyReused, Unreachable
from headrace.ports import Ports
from schemas.order import PlaceOrder
from schemas.values import NAME_PATTERN, Currency, Customer, Money, OrderId, OrderLines
from services.order.app import order
from services.order.handlers import place_order
from services.order.model import Order, OrderIdReused, OrderStatus

logger = logging.getLogger(__name__)

OpenPorts: TypeAlias = Callable[[], AbstractAsyncContextManager[Ports]]

PROBLEM: Final = "application/problem+json"
"""RFC 9457."""
IDEMPOTENCY_HEADER: Final = "Idempotency-Key"
"""draft-ietf-httpapi-idempotency-key-header. It wants the key in quotes (a string of RFC 8941),
which few clients send; without them it is the same key."""
ATTEMPTS: Final = 5
"""Transactions for one request, when somebody else writes the same order meanwhile."""

_KEY_CHARACTERS = 128
_QUOTED = re.compile(r'"((?:[^"\\]|\\["\\])*)"')
_RETRY_SECONDS = "5"
_NOT_SERVED = "There is nothing here but POST /orders, GET /orders/{id} and GET /healthz."
_NOT_READ = "The order could not be read. Ask again in a few seconds."
_SAME = f"as it is and under the {IDEMPOTENCY_HEADER} it had if any"
_NOT_TAKEN = f"The order was not taken. Send it again in a few seconds, {_SAME}."
_NOT_KNOWN = (
    f"Whether the order was taken is not known. Send it again in a few seconds, {_SAME}: it is "
    "taken once."
)
_KEY_REUSED = (
    f"This {IDEMPOTENCY_HEADER} was used before, for an order that says something else. Take a new "
    "key for this one."
)


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
        async with ports() as opened, connect(order, opened) as service:
            app.state.service = service
            yield

    return Starlette(
        routes=[
            Route("/orders", post_order, methods=["POST"]),
            Route("/orders/{order_id}", get_order, methods=["GET"], name="order"),
            Route("/healthz", healthz, methods=["GET"]),
        ],
        exception_handlers={
            HTTPException: _http_problem,
            ValidationError: _content_problem,
            KeyReused: _key_problem,
            OrderIdReused: _id_problem,
            CloudError: _outage,
            Conflict: _outage,
        },
        lifespan=lifespan,
    )


async def post_order(request: Request) -> Response:
    """Take an order: 201 once it stands, with the order as it was placed, and where to ask how it
    stands.

    The same order again has the same answer and no effect, however often it is sent and whatever
    became of it: under the same `Idempotency-Key`, or without one under the same order id.
    """
    command = PlaceOrder.model_validate_json(await request.body())
    answer = await placed(request.app.state.service, command, _idempotency_key(request))
    return JSONResponse(
        answer,
        status_code=HTTPStatus.CREATED,
        headers={"Location": request.url_for("order", order_id=command.order_id).path},
    )


async def get_order(request: Request) -> Response:
    """How an order stands at this moment."""
    order_id: str = request.path_params["order_id"]
    service: Connection = request.app.state.service
    possible = re.fullmatch(NAME_PATTERN, order_id)
    found = await service.get(Order, order_id) if possible else None
    if found is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, f"There is no order {order_id}.")
    return JSONResponse(_shown(found))


async def healthz(request: Request) -> Response:
    return JSONResponse({"status": "ok"})


# --- placing -----------------------------------------------------------------------------


async def placed(service: Connection, command: PlaceOrder, key: str | None) -> Any:
    """The answer to a request; raises `Conflict` if others were always faster."""
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(Conflict),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_random(0, 0.1),
        reraise=True,
    ):
        with attempt:
            return await _placed_at_once(service, command, key)
    raise AssertionError("tenacity either returns from the block or raises")


async def _placed_at_once(service: Connection, command: PlaceOrder, key: str | None) -> Any:
    # A key is a stranger's choice: it must not meet those of other work of this service.
    own = None if key is None else f"POST /orders {key}"
    try:
        async with service.transaction(key=own, content=_digest(command)) as tx:
            placed = await place_order(command, tx)
            if placed is not None:
                tx.publish(placed)
            tx.answer = _shown(Order.of(command))
    except AlreadyDone as done:
        return done.answer
    return tx.answer


def _shown(order: Order) -> dict[str, Any]:
    return OrderView.of(order).model_dump(mode="json")


def _digest(command: PlaceOrder) -> str:
    """What a command says, however it was written. Defaults are left out, so that a request is
    still the same one after a field with a default was added."""
    return sha256(command.model_dump_json(exclude_defaults=True).encode()).hexdigest()


def _idempotency_key(request: Request) -> str | None:
    given = request.headers.getlist(IDEMPOTENCY_HEADER)
    if not given:
        return None
    key = _unquoted(given[0])
    if len(given) == 1 and 0 < len(key) <= _KEY_CHARACTERS and key.isascii() and key.isprintable():
        return key
    raise HTTPException(
        HTTPStatus.BAD_REQUEST,
        f"There may be one {IDEMPOTENCY_HEADER}, of 1 to {_KEY_CHARACTERS} printable ASCII "
        "characters.",
    )


def _unquoted(key: str) -> str:
    string = _QUOTED.fullmatch(key)
    return re.sub(r"\\(.)", r"\1", string[1]) if string else key


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


async def _key_problem(request: Request, error: Exception) -> Response:
    return _problem(HTTPStatus.UNPROCESSABLE_ENTITY, _KEY_REUSED)


async def _id_problem(request: Request, error: Exception) -> Response:
    return _problem(HTTPStatus.CONFLICT, str(error))


async def _outage(request: Request, error: Exception) -> Response:
    """What AWS said stays in the log; the caller is told what to do."""
    logger.error("%s %s failed: %s", request.method, request.url.path, error)
    detail = _NOT_KNOWN if isinstance(error, Unreachable) else _NOT_TAKEN
    return _problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        _NOT_READ if request.method == "GET" else detail,
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
