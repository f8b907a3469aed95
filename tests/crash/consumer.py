"""A consumer as the worker runs it, from its start to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from headrace.batch import Batch
from headrace.hosts.deadline import Deadline
from headrace.hosts.settings import LambdaSettings
from headrace.limits import SQS_BATCH_ENTRIES, SQS_MAX_WAIT
from headrace.observer import Unobserved
from headrace.pipeline import running
from headrace.ports import Attribute, Delivery, Ports, QueueEntry
from headrace.settle import Settler
from headrace.testing import delivery_of
from headrace.turns import Turns
from tests.crash import troubles
from tests.crash.bells import RopePulled
from tests.crash.scenarios import Scenario
from tests.crash.troubles import Trouble, trouble_handlers, troubled

PAUSES = 100
"""So often something may be hidden from a consumer, until it is taken for lost."""


async def live(
    scenario: Scenario, ports: Ports, deliveries: Sequence[Delivery], trouble: Trouble
) -> None:
    """Start, handle these deliveries, and close."""
    trouble_handlers(trouble, ports)
    around = troubled(ports, trouble)
    async with running(scenario.service, around) as pipeline:
        settler = Settler(around.queues, ports.clock, ports.randomness, deletes=True)
        batch = Batch(
            scenario.service.name,
            pipeline.consume,
            settler.settle,
            turns=Turns(scenario.at_a_time),
            observer=Unobserved(),
            **_ends(ports, deliveries),
        )
        try:
            await batch.run(deliveries)
        finally:
            await settler.flush()


def _ends(ports: Ports, deliveries: Sequence[Delivery]) -> dict[str, Any]:
    """What ends a batch by the deadline of its deliveries, if they have one."""
    ends = [delivery.deadline for delivery in deliveries if delivery.deadline is not None]
    if not ends:
        return {}
    deadline = Deadline(ports.clock, min(ends) - ports.clock.now(), LambdaSettings().margin)
    return {"stay": deadline.stay, "closing": lambda: deadline.is_near}


async def send(
    scenario: Scenario, ports: Ports, pulls: Sequence[RopePulled], *, attempt: str = ""
) -> None:
    """Each as a message of its own, in order; in the FIFO group of its bell."""
    for pull in pulls:
        attributes = {f"note-{n}": Attribute("…") for n in range(scenario.attributes)}
        entry = QueueEntry(body_of(pull), attributes=attributes)
        if scenario.is_fifo:
            deduplication_id = f"{pull.pull}{attempt}"
            entry = replace(entry, group_id=pull.bell, deduplication_id=deduplication_id)
        assert await ports.queues.send(scenario.queue, [entry] * scenario.copies) == []


def body_of(pull: RopePulled) -> str:
    """The message, whose event id is that of the pull."""
    return delivery_of(pull, "", id=pull.pull).body


async def receive(scenario: Scenario, ports: Ports, pulls: Sequence[RopePulled]) -> list[Delivery]:
    """All copies of these messages, which the queue has."""
    found: list[Delivery] = []
    count = len(pulls) * scenario.copies
    pauses = 0
    while len(found) < count:
        limit = min(SQS_BATCH_ENTRIES, count - len(found))
        more = await ports.queues.receive(scenario.queue, limit=limit, wait=SQS_MAX_WAIT)
        pauses += not more
        assert pauses < PAUSES, f"{scenario.queue} gave {len(found)} messages, not {count}."
        found += more
    return found


def hurry(scenario: Scenario, ports: Ports, deliveries: Sequence[Delivery]) -> list[Delivery]:
    """The deliveries with the deadline of the scenario."""
    if scenario.deadline is None:
        return list(deliveries)
    deadline = ports.clock.now() + scenario.deadline
    return [replace(delivery, deadline=deadline) for delivery in deliveries]


async def bring_to_an_end(scenario: Scenario, ports: Ports, pause: timedelta) -> set[str]:
    """Deliver what is left to fresh consumers, until nothing is left: the bodies that were.
    `pause` is how long to wait for what is hidden."""
    delivered: set[str] = set()
    for _ in range(PAUSES):
        while deliveries := await ports.queues.receive(
            scenario.queue, limit=SQS_BATCH_ENTRIES, wait=timedelta(0)
        ):
            delivered |= {delivery.body for delivery in deliveries}
            await live(scenario, ports, deliveries, troubles.none)
        if await left(ports, scenario.queue) == 0:
            break
        await asyncio.sleep(pause.total_seconds())
    return delivered


async def left(ports: Ports, queue: str) -> int:
    depth = await ports.queues.depth(queue)
    return depth.visible + depth.in_flight + depth.delayed
