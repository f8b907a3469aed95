"""What goes wrong around a consumer: in the calls it makes, and in its handlers.

A trouble is a function that stands in for every call. It may let it through, hold it up, refuse
it, or lose its answer. `call.method` is that of a port, or `handle` for a run of a handler.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from headrace.entity import VERSION_ATTRIBUTE
from headrace.errors import Unreachable
from headrace.ports import EntryFailure, ItemKey, Ports, Put, Store, Update


@dataclass(frozen=True, slots=True)
class Call:
    """One call on its way, with its positional arguments, and the ports behind it."""

    method: str
    arguments: Sequence[Any]
    ports: Ports
    go_on: Callable[[], Awaitable[Any]]


Trouble: TypeAlias = Callable[[Call], Awaitable[Any]]

COMMITS = ("transact", "change")
"""The calls that an effect may be committed by."""


# --- troubles --------------------------------------------------------------------------


async def none(call: Call) -> Any:
    return await call.go_on()


def down(*methods: str, error: Callable[[], Exception] = Unreachable) -> Trouble:
    """These calls fail, without an effect."""

    async def trouble(call: Call) -> Any:
        if call.method in methods:
            raise error()
        return await call.go_on()

    return trouble


def lost(*methods: str) -> Trouble:
    """These calls take effect, and their answers are lost; a handler runs, and then raises."""

    async def trouble(call: Call) -> Any:
        answer = await call.go_on()
        if call.method in methods:
            raise Unreachable("No answer came back.")
        return answer

    return trouble


def refused(*methods: str, retryable: bool = False) -> Trouble:
    """These batch calls answer, and every entry of them failed."""

    async def trouble(call: Call) -> Any:
        if call.method not in methods:
            return await call.go_on()
        entries = range(len(call.arguments[1]))
        return [EntryFailure(n, "Refused", "not this one", retryable) for n in entries]

    return trouble


def slow(*methods: str, seconds: float) -> Trouble:
    """These calls take so long."""

    async def trouble(call: Call) -> Any:
        if call.method in methods:
            await asyncio.sleep(seconds)
        return await call.go_on()

    return trouble


def rival(table: str, bell: str) -> Trouble:
    """Before anything is committed, another writer rings the bell; the item `rival#<bell>` says
    that it did."""

    async def trouble(call: Call) -> Any:
        if call.method in COMMITS:
            await _ring_as_rival(call.ports.store, table, bell)
        return await call.go_on()

    return trouble


async def _ring_as_rival(store: Store, table: str, bell: str) -> None:
    one = {":one": {"N": "1"}}
    await store.transact(
        [
            Update(
                ItemKey(table, f"bell#{bell}", "-"),
                "SET bell = :bell ADD rings :one, #version :one",
                {"#version": VERSION_ATTRIBUTE},
                {**one, ":bell": {"S": bell}},
            ),
            Put(table, ItemKey(table, f"rival#{bell}", "-").attributes()),
        ],
        token=f"rival-{bell}",
    )


def once(trouble: Trouble, *methods: str) -> Trouble:
    """Only at the first of these calls."""
    return _divided(trouble, none, methods)


def but_once(trouble: Trouble, *methods: str) -> Trouble:
    """At all of these calls but the first."""
    return _divided(none, trouble, methods)


def both(one: Trouble, other: Trouble) -> Trouble:
    async def trouble(call: Call) -> Any:
        return await one(replace(call, go_on=lambda: other(call)))

    return trouble


def _divided(at_first: Trouble, afterwards: Trouble, methods: Sequence[str]) -> Trouble:
    called = False

    async def trouble(call: Call) -> Any:
        nonlocal called
        if call.method not in methods:
            return await call.go_on()
        is_first, called = not called, True
        return await (at_first if is_first else afterwards)(call)

    return trouble


# --- getting into trouble --------------------------------------------------------------


class _Port:
    def __init__(self, port: Any, ports: Ports, trouble: Trouble) -> None:
        self._port = port
        self._ports = ports
        self._trouble = trouble

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._port, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            go_on = lambda: method(*args, **kwargs)  # noqa: E731
            return await self._trouble(Call(name, args, self._ports, go_on))

        return call


def troubled(ports: Ports, trouble: Trouble) -> Ports:
    """The same ports, with every call in trouble."""
    wrapped = {
        name: _Port(getattr(ports, name), ports, trouble) for name in ("queues", "bus", "store")
    }
    return replace(ports, **wrapped)


_handlers: ContextVar[tuple[Trouble, Ports]] = ContextVar("_handlers")


def trouble_handlers(trouble: Trouble, ports: Ports) -> None:
    """From now on, in this context, handlers run in this trouble."""
    _handlers.set((trouble, ports))


async def in_trouble(method: str, function: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
    trouble, ports = _handlers.get()
    return await trouble(Call(method, arguments, ports, lambda: function(*arguments)))
