"""Message groups that wait behind a letter: what is parked goes on when the letter is settled."""

from __future__ import annotations

from collections.abc import Callable

from headrace.dlq.letters import Letter
from headrace.errors import HeadraceError
from headrace.parking import Block
from headrace.ports import Ports
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
        self._yard = Yard(ports.store, ports.queues, ports.randomness, service.table or "")

    async def sweep(self) -> list[str]:
        """Let go on what waits behind a letter that is done: a run may have been killed before it
        came to that. Returns of what could not go on why, as sentences. Raises `CloudError` when it
        cannot be seen what waits."""
        found = [
            await self._replay(block)
            for consumer in self._consumers
            for block in await self._settled(consumer)
        ]
        return [why for why in found if why is not None]

    async def _settled(self, consumer: str) -> list[Block]:
        blocks = await self._yard.blocks(consumer)
        settled = await self._yard.settled(blocks)
        return [block for block, is_so in zip(blocks, settled, strict=True) if is_so]

    async def after(self, letter: Letter, *, dropped: bool = False) -> list[str]:
        """Let go on what waits behind this letter, if it is done for the handler they wait for, or
        was `dropped`. Returns of what could not go on why, as sentences."""
        group = letter.delivery.group_id
        if not letter.delivery.fifo or group is None:
            return []
        found = [
            await self._after(letter, consumer, group, dropped) for consumer in self._consumers
        ]
        return [why for why in found if why is not None]

    async def _after(self, letter: Letter, consumer: str, group: str, dropped: bool) -> str | None:
        try:
            block = await self._yard.block(consumer, group)
            if block is None or letter.event_id != block.event_id:
                return None
            if not dropped and not await self._yard.was_handled(block, block.event_id):
                return None
        except HeadraceError as error:
            # The other groups, and the letters, must not wait for this one.
            return self._stuck(group, error)
        return await self._replay(block)

    async def _replay(self, block: Block) -> str | None:
        try:
            replayed = await self._yard.replay(block, self._source)
        except HeadraceError as error:
            return self._stuck(block.group, error)
        self._say(outcome_of(block, replayed))
        return None

    def _stuck(self, group: str, error: HeadraceError) -> str:
        why = f"The message group {group} waits still: {error} Run this again."
        self._say(why)
        return why


def outcome_of(block: Block, replayed: Replayed) -> str:
    """What a replay has come to, in a sentence."""
    match replayed:
        case Replayed.FREE:
            return f"The message group {block.group} goes on: {block.waiting:,} parked."
        case Replayed.BLOCKED:
            return f"The message group {block.group} waits again, behind another message."
        case Replayed.GOING_ON:
            return (
                f"What was parked in the message group {block.group} is in its queue, and not "
                "handled yet: run the worker, and this again."
            )
