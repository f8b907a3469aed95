"""Message groups that wait behind a letter: what is parked goes on when the letter is settled."""

from __future__ import annotations

from collections.abc import Callable

from headrace.dlq.letters import Letter
from headrace.dlq.records import Records
from headrace.parking import Block
from headrace.ports import Ports
from headrace.record import Status
from headrace.service import Service
from headrace.yard import Yard


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
                if await self._is_done(block):
                    await self._replay(block)

    async def after(self, letter: Letter) -> None:
        """Let go on what waits behind this letter, which is done or not wanted any more. Raises
        `CloudError`."""
        group = letter.delivery.group_id
        if not letter.delivery.fifo or group is None:
            return
        for consumer in self._consumers:
            block = await self._yard.block(consumer, group)
            if block is not None and letter.event_id == block.event_id:
                await self._replay(block)

    async def _is_done(self, block: Block) -> bool:
        inbox = self._records.inbox
        if inbox is None:
            return False
        (record,) = await inbox.read([inbox.key(block.consumer, block.event_id)])
        return record is not None and record.status is not Status.LEASED

    async def _replay(self, block: Block) -> None:
        if await self._yard.replay(block, self._source):
            self._say(f"The message group {block.group} goes on: {block.waiting:,} were parked.")
        else:
            self._say(f"The message group {block.group} waits again, behind another message.")
