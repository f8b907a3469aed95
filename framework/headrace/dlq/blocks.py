"""Message groups that wait: for which message, whether its letter is still there, and letting them
go on without it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Any

from headrace.dlq.holding import MOST, VISIBILITY, Holding, holding
from headrace.dlq.letters import Letter, read_letter
from headrace.errors import ConfigurationError, HeadraceError, NotProvisioned
from headrace.parking import Block
from headrace.ports import Ports
from headrace.service import Handler, Service
from headrace.topology.model import dead_letter_queue
from headrace.yard import Replayed, Yard


class Head(Enum):
    """What is known of the message that a group waits for: its letter is in the dead-letter queue,
    or is not, or cannot be seen as others are hidden; or it was handled, or dropped, and what waits
    behind it has not all gone on yet."""

    THERE = "there"
    GONE = "gone"
    UNSEEN = "not to be seen"
    SETTLED = "settled"


@dataclass(frozen=True, slots=True)
class Waiting:
    """A blocked group. `queue` is where what waits goes back to, if that is known, and `parks` says
    whether the code still has this handler with park=True. `letter_id` is by what name the head can
    be redriven or dropped."""

    block: Block
    head: Head
    parks: bool
    queue: str | None
    letter_id: str | None = None

    @property
    def is_settled(self) -> bool:
        return self.head is Head.SETTLED

    def as_json(self) -> dict[str, Any]:
        block = self.block
        return {
            "consumer": block.consumer,
            "group": block.group,
            "queue": self.queue,
            "event_id": block.event_id,
            "message_id": self.letter_id or block.message_id,
            "reason": block.reason,
            "since": block.since,
            "waiting": block.waiting,
            "letter": self.head.value,
            "parks": self.parks,
        }


class Blocks:
    """The blocked groups of one service. Its table is read by consumer: a handler that the code no
    longer has must be named."""

    def __init__(
        self,
        service: Service,
        ports: Ports,
        *,
        visibility: timedelta = VISIBILITY,
        most: int = MOST,
    ) -> None:
        self._service = service
        self._ports = ports
        self._visibility = visibility
        self._most = most
        self._handlers = {handler.consumer: handler for handler in service.handlers}

    async def of(self, consumer: str | None = None) -> list[Waiting]:
        """The groups that wait, of one consumer or of all handlers there are. Raises `CloudError`,
        and `ConfigurationError` if the service has no table."""
        names = list(self._handlers) if consumer is None else [self.named(consumer)]
        yard = self._yard()
        return await self._seen([block for name in names for block in await yard.blocks(name)])

    async def one(self, consumer: str, group: str) -> Waiting:
        """One group that waits. Raises `HeadraceError` if it does not, and as `of`."""
        name = self.named(consumer)
        block = await self._yard().block(name, group)
        if block is None:
            raise HeadraceError(
                f"The message group {group!r} of {name} does not wait for anything: `headrace dlq "
                "blocked` shows those that do."
            )
        (waiting,) = await self._seen([block])
        return waiting

    def refuse(self, waiting: Waiting, *, anyway: bool = False, queue: str | None = None) -> None:
        """Raises `HeadraceError` where `free` would."""
        if not anyway:
            _refuse_with_letter(waiting)
        if queue is None and waiting.queue is None:
            raise ConfigurationError(
                f"To which queue the messages of {waiting.block.consumer} go back is not known: "
                "name it with --queue."
            )

    async def in_the_queue(self, waiting: Waiting) -> int:
        """How many messages the queue holds that the head would come back to. Raises
        `CloudError`."""
        if waiting.queue is None:
            return 0
        depth = await self._ports.queues.depth(waiting.queue)
        return depth.visible + depth.in_flight + depth.delayed

    async def free(
        self, waiting: Waiting, *, anyway: bool = False, queue: str | None = None
    ) -> Replayed:
        """Let what waits go on as if the head was dropped, in order; it goes to `queue`, or to that
        of the handler. Raises `HeadraceError` while the letter of the head may still be there,
        unless it is to be done `anyway`, and `CloudError`."""
        self.refuse(waiting, anyway=anyway, queue=queue)
        # A handler that does not park has nothing parked for it meanwhile, and one that is not
        # there has no record of what was handled.
        return await self._yard().replay(
            waiting.block, queue or waiting.queue or "", waits=waiting.parks
        )

    def named(self, consumer: str) -> str:
        """The full name of a handler that may be given without its service."""
        return consumer if "." in consumer else f"{self._service.name}.{consumer}"

    def _yard(self) -> Yard:
        if self._service.table is None:
            raise ConfigurationError(
                f"{self._service.name} has no table, so nothing of it is parked."
            )
        ports = self._ports
        return Yard(ports.store, ports.queues, ports.randomness, self._service.table)

    async def _seen(self, blocks: Sequence[Block]) -> list[Waiting]:
        """The blocks, with what the dead-letter queues say of their heads."""
        found: dict[int, Waiting] = {}
        places: dict[str | None, list[int]] = {}
        settled = await self._yard().settled(blocks)
        for number, block in enumerate(blocks):
            if settled[number]:
                found[number] = self._waiting(block, Head.SETTLED)
            else:
                places.setdefault(block.queue, []).append(number)
        for queue, numbers in places.items():
            seen = await self._looked_for([blocks[number] for number in numbers], queue)
            found |= dict(zip(numbers, seen, strict=True))
        return [found[number] for number in range(len(blocks))]

    async def _looked_for(self, blocks: Sequence[Block], queue: str | None) -> list[Waiting]:
        if queue is None:
            return [self._waiting(block, Head.UNSEEN) for block in blocks]
        try:
            async with holding(
                self._ports.queues,
                dead_letter_queue(queue),
                visibility=self._visibility,
                most=self._most,
            ) as held:
                deliveries = await held.fill()
        except NotProvisioned:
            return [self._waiting(block, Head.GONE) for block in blocks]
        letters = [read_letter(self._service, queue, delivery) for delivery in deliveries]
        there = {(letter.delivery.group_id, letter.event_id): letter for letter in letters}
        missing = _missing(held)
        return [
            self._found(block, there.get((block.group, block.event_id)), missing)
            for block in blocks
        ]

    def _found(self, block: Block, letter: Letter | None, missing: Head) -> Waiting:
        if letter is None:
            return self._waiting(block, missing)
        return self._waiting(block, Head.THERE, letter.original_id)

    def _waiting(self, block: Block, head: Head, letter_id: str | None = None) -> Waiting:
        handler = self._handlers.get(block.consumer)
        return Waiting(
            block,
            head,
            parks=handler is not None and handler.park,
            queue=_queue_of(handler, block),
            letter_id=letter_id,
        )


def _queue_of(handler: Handler | None, block: Block) -> str | None:
    """Where the handler reads by now; of one that is gone, where the head came from."""
    return block.queue if handler is None else handler.queue


def _missing(held: Holding) -> Head:
    """What is to be thought of a letter that was not among those that could be held."""
    return Head.UNSEEN if held.full or held.elsewhere or held.behind else Head.GONE


def _refuse_with_letter(waiting: Waiting) -> None:
    block = waiting.block
    if waiting.head is Head.THERE:
        then = "lets the group go on" if waiting.parks else "comes first"
        raise HeadraceError(
            f"The letter that the message group {block.group!r} waits for is still in the "
            f"dead-letter queue: `headrace dlq redrive` or `drop` with --id {waiting.letter_id} "
            f"{then}. With --anyway the group goes on now, and the letter stays."
        )
    if waiting.head is Head.UNSEEN:
        raise HeadraceError(
            f"Whether the letter that the message group {block.group!r} waits for is still in the "
            "dead-letter queue cannot be seen, as others hide it, or stand before it: look again "
            "in a minute, or add --anyway."
        )
