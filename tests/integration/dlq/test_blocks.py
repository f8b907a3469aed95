"""Message groups that wait, on the emulator."""

from __future__ import annotations

from datetime import timedelta

import pytest

from headrace.dlq.blocks import Blocks, Head
from headrace.pipeline import running
from headrace.ports import Delivery, Ports, QueueEntry
from headrace.settle import Settler
from headrace.testing import delivery_of
from headrace.yard import Replayed
from tests.load.common import emulated
from tests.unit.dlq import siding

pytestmark = pytest.mark.emulator

SOON = timedelta(seconds=5)


async def test_a_group_whose_letter_was_deleted_is_seen_and_freed_on_the_emulator(
    ministack_url: str,
) -> None:
    siding.broken.add(1)
    async with emulated(siding.siding, url=ministack_url) as on:
        for number in (1, 2, 3):
            event = siding.CarShunted(track="a", number=number)
            body = delivery_of(event, siding.QUEUE, id=f"a-{number}").body
            await on.ports.queues.send(
                siding.QUEUE, [QueueEntry(body, group_id="a", deduplication_id=f"{number}")]
            )
        await handle(on.ports, 3)
        siding.broken.clear()
        blocks = Blocks(siding.siding, on.ports)
        (waiting,) = await blocks.of()
        assert (waiting.block.waiting, waiting.head) == (2, Head.THERE)
        (letter,) = await on.ports.queues.receive(siding.DEAD_LETTERS, limit=10, wait=SOON)
        await on.ports.queues.delete(siding.DEAD_LETTERS, [letter.receipt_handle])

        waiting = await blocks.one("shunt", "a")
        async with siding.working(on.ports):
            freed = await blocks.free(waiting)

        assert (waiting.head, freed) == (Head.GONE, Replayed.FREE)
        assert await blocks.of() == []
        assert await siding.shunted(on.ports, "a") == [2, 3]


async def handle(ports: Ports, count: int) -> None:
    """So many messages, one after the other."""
    settler = Settler(ports.queues, ports.clock, ports.randomness, deletes=True)
    async with running(siding.siding, ports) as pipeline:
        for _ in range(count):
            delivery = await _received(ports)
            await settler.settle(delivery, await pipeline.consume(delivery))
            await settler.flush()


async def _received(ports: Ports) -> Delivery:
    (delivery,) = await ports.queues.receive(siding.QUEUE, limit=1, wait=SOON)
    return delivery
