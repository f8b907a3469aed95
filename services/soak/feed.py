"""What is sent: orders by both ways, some of them twice, and never too many at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from random import Random

from headrace.client import send
from headrace.ports import Ports
from services.demo.sample import DemoOrder, Sample
from services.demo.script import BUS, command_id
from services.soak.tap import Seen

BACKLOG = 60
"""Orders on their way at a time: an answer that waits in a long queue is not in time."""
_BATCH = 10
_ONE_TWICE_OF = 20
_LATER = 300


@dataclass(frozen=True, slots=True)
class Feed:
    """The orders, half of them commands and half checkouts, and all sendings in their order:
    one order in twenty is sent again, at once or some hundred orders later.

    A command goes again under its id. The storefront's events have no id of their own, so a
    second one is what a customer makes who presses the button twice.
    """

    sample: Sample
    sendings: Sequence[DemoOrder]

    @classmethod
    def of(cls, sample: Sample, chance: Random) -> Feed:
        ways = cycle(("command", "storefront"))
        orders = tuple(
            order.model_copy(update={"via": way})
            for order, way in zip(sample.orders, ways, strict=False)
        )
        places = [*enumerate(orders)]
        again = [places[0], *(place for place in places if chance.random() < 1 / _ONE_TWICE_OF)]
        later = [(place + chance.uniform(0, _LATER), order) for place, order in again]
        in_turn = sorted([*places, *later], key=lambda sending: sending[0])
        return cls(Sample(orders, sample.stock), [order for _, order in in_turn])

    @property
    def twice(self) -> int:
        """How many sendings are of an order that was sent before."""
        return len(self.sendings) - len(self.sample.orders)

    async def go(self, ports: Ports, seen: Seen) -> None:
        """Send everything, as fast as customers are notified."""
        sent: set[str] = set()

        def has_room() -> bool:
            return len(sent) - seen.count("notified") < BACKLOG

        for batch in self._batches():
            await seen.until(has_room)
            await _send(ports, batch)
            sent.update(order.order_id for order in batch)

    def _batches(self) -> Iterator[Sequence[DemoOrder]]:
        for start in range(0, len(self.sendings), _BATCH):
            yield self.sendings[start : start + _BATCH]


async def _send(ports: Ports, orders: Sequence[DemoOrder]) -> None:
    commands = [order for order in orders if order.via == "command"]
    checkouts = [order.as_checkout() for order in orders if order.via == "storefront"]
    await send(
        ports,
        [order.as_command() for order in commands],
        bus=BUS,
        ids=[command_id(order) for order in commands],
    )
    await send(ports, checkouts, bus=BUS)
