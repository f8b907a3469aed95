"""Message groups that wait behind a letter: what is parked goes on when the letter is settled."""

from __future__ import annotations

from collections.abc import Callable

from headrace.dlq.letters import Letter
from headrace.dlq.records import Records
from headrace.errors import HeadraceError
from headrace.parking import Block
from headrace.ports import Ports
from headrace.record import Status
from headrace.service import Service
from headrace.yard import Replayed, Yard


class Parked:
    """The parked groups of one queue of a service."""

    def __init__(
        self,
        service: Service,
        source: str,
        ports: Ports,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._source = source
        self._say = say
        handlers = service.handlers_of(source)
        self._consumers = [handler.consumer for handler in handlers if handler.park]
        self._records = Records(service, ports)
        self._yard = Yard(ports.store, ports.queues, ports.randomness, service.table or "")

    async def sweep(self) -> None:
        """Let go on what waits behind a letter that is done: a run may have been killed before it
        came to that. Raises `CloudError`."""
        for consumer in self._consumers:
            for block in await self._yard.blocks(consumer):
                if block.released or await self._is_done(block):
                    await self._replay(block)

    async def after(self, letter: Letter, *, dropped: bool = False) -> None:
        """Let go on what waits behind this letter, if it is done for the handler they wait for, or
        was `dropped`. Raises `CloudError`."""
        group = letter.delivery.group_id
        if not letter.delivery.fifo or group is None:
            return
        for consumer in self._consumers:
            block = await self._yard.block(consumer, group)
            if block is None or letter.event_id != block.event_id:
                continue
            if dropped or await self._is_done(block):
                await self._replay(block)

    async def _is_done(self, block: Block) -> bool:
        inbox = self._records.inbox
        if inbox is None:
            return False
        (record,) = await inbox.read([inbox.key(block.consumer, block.event_id)])
        return record is not None and record.status is not Status.LEASED

    async def _replay(self, block: Block) -> None:
        try:
            replayed = await self._yard.replay(block, self._source)
        except HeadraceError as error:
            # The other groups, and the letters, must not wait for this one.
            self._say(f"The message group {block.group} waits still: {error}")
            return
        match replayed:
            case Replayed.FREE:
                self._say(f"The message group {block.group} goes on: {block.waiting:,} parked.")
            case Replayed.BLOCKED:
                self._say(f"The message group {block.group} waits again, behind another message.")
            case Replayed.GOING_ON:
                self._say(
                    f"What was parked in the message group {block.group} is in its queue, and not "
                    "handled yet: run the worker, and this again."
                )
