"""The process dies before or after any call to AWS; the redelivery finishes what was begun.

The calls are not listed here: they are counted while a delivery runs, so a new one is covered.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from headrace import Ack, Entity, Event, Service, Transaction
from headrace.errors import Unreachable
from headrace.pipeline import running
from headrace.ports import Delivery, ItemKey, Ports
from headrace.testing import delivery_of
from headrace.testing.memory import MemoryCloud, memory_ports
from headrace.topology.derive import topology


class Tolled(Event, source="bell.tower"):
    bell: str


class Noticed(Event, source="bell.village"):
    bell: str


class Bell(Entity, pk="bell#{bell}"):
    bell: str
    rings: int = 0


village = Service("village", bus="valley")


@village.on(Tolled)
async def hear(event: Tolled, tx: Transaction) -> Noticed:
    bell = await tx.get(Bell, event.bell) or Bell(bell=event.bell)
    bell.rings += 1
    tx.put(bell)
    return Noticed(bell=event.bell)


@dataclass
class Moment:
    """The point at which the process dies: before or after its `number`-th call to AWS."""

    number: int
    after: bool
    calls: int = 0
    reached: asyncio.Event = field(default_factory=asyncio.Event)

    async def pass_through(self, call: Callable[[], Awaitable[Any]]) -> Any:
        self.calls += 1
        here = self.calls == self.number
        if here and not self.after:
            await self.die()
        answer = await call()
        if here:
            await self.die()
        return answer

    async def die(self) -> None:
        self.reached.set()
        await asyncio.Event().wait()


class Mortal:
    """A port of a process that dies at its moment, and the details it put on the bus."""

    def __init__(self, port: Any, moment: Moment, sent: list[str]) -> None:
        self._port = port
        self._moment = moment
        self._sent = sent

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._port, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await self._moment.pass_through(lambda: self._noted(name, method, args, kwargs))

        return call

    async def _noted(self, name: str, method: Any, args: Any, kwargs: Any) -> Any:
        if name == "put":
            self._sent += [entry.detail for entry in args[1]]
        return await method(*args, **kwargs)


async def deliver(cloud: MemoryCloud[Any], moment: Moment, sent: list[str]) -> object:
    """The outcome of one delivery, or `None` if the process died meanwhile."""
    ports: Ports = replace(
        cloud.ports,
        store=Mortal(cloud.store, moment, sent),
        bus=Mortal(cloud.bus, moment, sent),
    )

    async def live() -> object:
        async with running(village, ports) as pipeline:
            return await pipeline.consume(a_ring())

    life = asyncio.create_task(live())
    death = asyncio.create_task(moment.reached.wait())
    await asyncio.wait((life, death), return_when=asyncio.FIRST_COMPLETED)
    if life.done():
        death.cancel()
        return life.result()
    # Its calls in flight hang and are never answered, as those of a dead process.
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await asyncio.wait((life,))
    return None


def a_ring() -> Delivery:
    return delivery_of(Tolled(bell="great"), "village", id="ring-1")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_crash_at_any_call_leaves_one_effect_and_every_event_out_under_one_id(
    after: bool,
) -> None:
    moments = 0
    while True:
        moments += 1
        cloud = memory_ports()
        cloud.provision(topology(village))
        sent: list[str] = []
        crashed = await deliver(cloud, Moment(moments, after), sent) is None
        again = await deliver(cloud, Moment(0, after), sent)

        assert isinstance(again, Ack), moments
        keys = [ItemKey("village", pk, "-") for pk in ("bell#great", "inbox#village.hear#ring-1")]
        bell, record = await cloud.store.get(keys)
        assert bell is not None, moments
        assert record is not None, moments
        assert bell["rings"] == {"N": "1"}, moments
        assert record["status"] == {"S": "done"}, moments
        assert len({json.loads(detail)["metadata"]["id"] for detail in sent}) == 1, moments
        if not crashed:
            break
    # It asked for the bus, read, committed, dispatched and marked: no fewer calls can die.
    assert moments > 5


async def test_a_done_mark_that_fails_holds_nothing_up(caplog: pytest.LogCaptureFixture) -> None:
    class NoMarks(Mortal):
        async def write(self, actions: Any) -> list[int]:
            raise Unreachable("down")

    cloud = memory_ports()
    cloud.provision(topology(village))
    moment, sent = Moment(0, after=False), list[str]()
    ports: Ports = replace(
        cloud.ports,
        store=NoMarks(cloud.store, moment, sent),
        bus=Mortal(cloud.bus, moment, sent),
    )
    async with running(village, ports) as pipeline:
        assert await pipeline.consume(a_ring()) == Ack()
    async with running(village, ports) as pipeline:
        assert await pipeline.consume(a_ring()) == Ack(duplicate=True)
    assert "could not be marked as done: down" in caplog.text
    assert len(sent) == 2
    assert len({json.loads(detail)["metadata"]["id"] for detail in sent}) == 1
