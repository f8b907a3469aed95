"""Middleware: a function around the handler, composed in one visible loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from headrace.envelope import Envelope
from headrace.events import Message
from headrace.ports import Delivery
from headrace.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Invocation:
    """One run of one handler. A conflict makes another invocation of the same delivery."""

    service: str
    handler: str
    envelope: Envelope[Message]
    delivery: Delivery
    transaction: Transaction


Call: TypeAlias = Callable[[Invocation], Awaitable[Any]]

Middleware: TypeAlias = Callable[[Invocation, Call], Awaitable[Any]]
"""`async def timed(invocation, call_next): …; return await call_next(invocation)`

What it returns is what the handler is taken to have returned; what it raises, to have
raised. It runs again with the handler when a commit conflicts.
"""


def compose(middleware: Sequence[Middleware], handler: Call) -> Call:
    """One callable that runs the first middleware outermost and the handler innermost."""
    call = handler
    for layer in reversed(middleware):
        call = partial(_apply, layer, call)
    return call


async def _apply(layer: Middleware, call_next: Call, invocation: Invocation) -> Any:
    return await layer(invocation, call_next)
