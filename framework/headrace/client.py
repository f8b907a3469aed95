"""Headrace from outside of a handler: sending messages, and reading what services keep.

For an HTTP endpoint, a command line, a scheduled job. Nothing is committed here: whoever must
be sure that a message goes out sends it again under the same id until `send` returns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from headrace.entity import EntityT, from_item, key_for
from headrace.envelope import Outgoing, root_metadata, seal
from headrace.errors import DispatchError, HeadraceError
from headrace.events import Message, contract_of
from headrace.limits import BATCH_GET_KEYS
from headrace.observer import Unobserved
from headrace.outbox import Outbox, refuse_unsendable
from headrace.ports import Item, ItemKey, Ports


class NotSent(DispatchError):
    """Some messages could not be sent; send `messages` again under their ids."""

    def __init__(self, message: str, messages: Sequence[Outgoing]) -> None:
        super().__init__(message)
        self.messages = tuple(messages)


async def send(
    ports: Ports, messages: Sequence[Message], *, bus: str, ids: Sequence[str] | None = None
) -> list[Outgoing]:
    """Send events to `bus` and commands to the queues of their owners, in batches.

    `ids` are the messages' ids, one each; by default they are new. A message that is sent again
    under its id is a duplicate to its consumers. A native event goes as its own producer sends
    it, without metadata, so it has the id that EventBridge gives it.

    Raises `TooLarge` and, for a bus that does not exist, `NotProvisioned` before anything is
    sent, and `NotSent` after everything was tried. A bus that was there is asked for again after a
    minute.
    """
    outgoing = _sealed(ports, messages, ids)
    for message in outgoing:
        refuse_unsendable(message)
    if any(message.owner is None for message in outgoing):
        # EventBridge takes an event for a bus that does not exist, says yes, and loses it.
        await ports.bus.require(bus)
    outbox = Outbox("client", bus, ports, Unobserved())
    answers = await asyncio.gather(
        *(outbox.dispatch([message]) for message in outgoing), return_exceptions=True
    )
    _refuse_unsent(outgoing, answers)
    return outgoing


async def read(
    ports: Ports, cls: type[EntityT], ids: Sequence[str], *, table: str
) -> list[EntityT | None]:
    """Entities whose key has one field, by the values of that field, as they are now."""
    keys = [key_for(cls, table, (id,), {}) for id in ids]
    distinct = list(dict.fromkeys(keys))
    items: dict[ItemKey, Item | None] = {}
    for start in range(0, len(distinct), BATCH_GET_KEYS):
        some = distinct[start : start + BATCH_GET_KEYS]
        items |= zip(some, await ports.store.get(some), strict=True)
    found = [items[key] for key in keys]
    return [None if item is None else from_item(cls, item) for item in found]


def _sealed(ports: Ports, messages: Sequence[Message], ids: Sequence[str] | None) -> list[Outgoing]:
    if ids is None:
        ids = [str(ports.randomness.uuid()) for _ in messages]
    if len(ids) != len(messages):
        raise HeadraceError(
            f"There are {len(messages)} messages and {len(ids)} ids: give one id for each "
            "message, or none at all."
        )
    return [_seal(ports, message, id) for message, id in zip(messages, ids, strict=True)]


def _seal(ports: Ports, message: Message, id: str) -> Outgoing:
    now = ports.clock.now()
    contract = contract_of(message)
    if not contract.native:
        return seal(message, root_metadata(message, id=id, now=now))
    return Outgoing(
        id=id,
        detail_type=contract.name,
        detail=message.model_dump_json(by_alias=True),
        time=now,
        source=contract.source,
    )


def _refuse_unsent(outgoing: Sequence[Outgoing], answers: Sequence[BaseException | None]) -> None:
    failed = [
        (message, answer)
        for message, answer in zip(outgoing, answers, strict=True)
        if answer is not None
    ]
    if not failed:
        return
    message, error = failed[0]
    if not isinstance(error, DispatchError):
        raise error
    raise NotSent(
        f"{len(failed)} of {len(outgoing)} messages were not sent, the first of them "
        f"{message.detail_type} {message.id}: {error.__cause__} Send these again under their ids.",
        [message for message, _ in failed],
    ) from error
