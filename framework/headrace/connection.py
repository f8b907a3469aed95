"""A service from outside of its handlers: an HTTP endpoint, a command line, a scheduled run.

What happens here happens as in a handler: writes and messages commit together, once.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import orjson

from headrace.aws.client import open_ports
from headrace.commit import Unmet
from headrace.entity import EntityT
from headrace.envelope import Cancellation, Metadata, Outgoing
from headrace.errors import (
    AlreadyDone,
    CloudError,
    ConditionNotMet,
    DispatchError,
    KeyReused,
    NoTable,
)
from headrace.events import contract_of
from headrace.group import GroupCommit
from headrace.inbox import Committed, Inbox, Unrecorded
from headrace.observer import Observer, Unobserved
from headrace.outbox import Outbox, sealed_as
from headrace.pipeline import refuse_undeclared, require_bus
from headrace.ports import Ports
from headrace.reads import SharedReads
from headrace.record import Record
from headrace.service import Service
from headrace.tracing import Tracer, safe
from headrace.transaction import Effects, Scheduled, Transaction, Wanted

logger = logging.getLogger(__name__)


class KeyedTransaction(Transaction):
    """The unit of work of something that no message started."""

    answer: Any = None
    """What `AlreadyDone` gives to whoever comes again with the key; anything that is JSON."""


class Connection:
    """A service whose table, bus and queues are at hand. Make one with `connect`."""

    def __init__(
        self,
        service: Service,
        ports: Ports,
        observer: Observer | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        if service.table is None:
            raise NoTable(
                f"The service {service.name!r} has no table, so there is nothing to connect to: "
                'write Service(…, table="…").'
            )
        self.service = service
        self.ports = ports
        self._tracer = safe(tracer)
        self._table = service.table
        self._reads = SharedReads(ports.store)
        self._group = GroupCommit(ports.store, ports.randomness, together=service.group_commit)
        self._outbox = Outbox(service.name, service.bus, ports, observer or Unobserved())
        self._inbox = Inbox(
            ports.store,
            self._group,
            ports.clock,
            ports.randomness,
            table=self._table,
            keep=service.redelivery_horizon,
        )
        self._unrecorded = Unrecorded(self._group, ports.clock, ports.randomness)

    # --- reading ---

    async def get(self, cls: type[EntityT], *values: Any, **fields: Any) -> EntityT | None:
        """One entity as it is now: `service.get(Order, "o-1")`."""
        return await self._reader().get(cls, *values, **fields)

    async def get_many(self, cls: type[EntityT], keys: Sequence[Any]) -> list[EntityT | None]:
        """The entities with these keys, in their order; a key of several fields is a tuple."""
        return await self._reader().get_many(cls, keys)

    async def query(self, cls: type[EntityT], *values: Any, **fields: Any) -> list[EntityT]:
        """The entities under one partition key, by sort key, as they are now:
        `service.query(Line, order_id)`."""
        return await self._reader().query(cls, *values, **fields)

    # --- writing ---

    @asynccontextmanager
    async def transaction(
        self, *, key: str | None = None, content: str | None = None
    ) -> AsyncIterator[KeyedTransaction]:
        """A unit of work: what is written and published in the block is committed at its end,
        all of it or nothing, and nothing if the block raises.

        With a `key` it happens once, however often it is begun: whoever comes again is told by
        `AlreadyDone`, with the `answer` of the first. `content` tells what the key stands for; the
        same key with other content raises `KeyReused`. A key is known for as long as a message
        of the service could come again.

        What is published must be declared: `Service(…, emits=[…])`. It is sent at the end of the
        block, or else by the relay. Raises `Conflict` if an entity changed since it was read:
        begin again. Raises `ConditionNotMet` if a condition of the block does not hold,
        `TooLarge` before any call, and `CloudError`; after `Unreachable` it may have happened, and
        the same key will tell.
        """
        event_id = key if key is not None else str(self.ports.randomness.uuid())
        if key is not None:
            known = await self._inbox.find(self.service.name, key)
            if known is not None:
                raise _repeated(known, key, content)
        tx = KeyedTransaction(
            self._reads,
            table=self._table,
            idempotency_key=f"{self.service.name}#{event_id}",
            now=self.ports.clock.now(),
        )
        record: Record | None = None
        try:
            try:
                yield tx
            finally:
                effects = tx.close()
            answer = None if key is None else tx.answer
            record = self._record(event_id, effects.messages, content=content, answer=answer)
            committed = await self._commit(record, effects, once=key is not None)
        except Exception as error:
            # It may have tripped over its own earlier effects, or its answer was lost.
            known_by_id = key is not None or record is not None
            standing = await self._standing(event_id) if known_by_id else None
            if standing is None:
                raise
            duplicate = record is None or standing.commit_id != record.commit_id
            if duplicate:
                raise _repeated(standing, event_id, content) from error
            committed = Committed(standing)
        if committed.duplicate:
            raise _repeated(committed.record, event_id, content)
        await self._send(committed.record)

    async def flush(self) -> None:
        """Note what was sent, now: a host that may be frozen after its answer does so before. What
        is not noted is sent again, by the relay."""
        await self._inbox.flush()

    async def close(self) -> None:
        """Wait until everything that was handed over has been answered."""
        await self._reads.flush()
        await self._group.flush()
        await self._outbox.flush()
        await self.flush()

    def _reader(self) -> Transaction:
        return Transaction(self._reads, table=self._table, idempotency_key="")

    def _record(
        self, event_id: str, messages: Sequence[Wanted], *, content: str | None, answer: Any
    ) -> Record:
        record = self._inbox.new_record(self.service.name, event_id, self._seal(messages))
        return replace(
            record,
            answer=None if answer is None else orjson.dumps(answer).decode(),
            content=content,
            # While it is pending it must not expire, as nothing else knows what is to be sent.
            expires_at=record.expires_at if record.done else None,
            relayed=self.service.name,
            since=self.ports.clock.now(),
        )

    async def _commit(self, record: Record, effects: Effects, *, once: bool) -> Committed:
        inbox: Inbox | Unrecorded = self._inbox
        if record.done and not once:
            # Nothing to repeat and nothing to send: there is nothing to remember.
            inbox = self._unrecorded
        try:
            return await inbox.commit(record, effects.actions, conditional=effects.conditional)
        except Unmet as unmet:
            raise ConditionNotMet(str(unmet), item=unmet.refused[0].item) from unmet

    async def _standing(self, event_id: str) -> Record | None:
        try:
            return await self._inbox.find(self.service.name, event_id)
        except CloudError as error:
            # What went wrong before says more.
            logger.warning("Whether %s stands could not be seen: %s", event_id, error)
            return None

    async def _send(self, record: Record) -> None:
        try:
            await self._outbox.dispatch(record.outgoing)
        except DispatchError as error:
            # It is committed, so whoever asked for it must not be told that it failed.
            logger.warning("%s is left to the relay: %s", record.key.pk, error)
        else:
            self._inbox.mark_done(record)

    def _seal(self, messages: Sequence[Wanted]) -> list[Outgoing | Cancellation]:
        now, sealed = self.ports.clock.now(), list[Outgoing | Cancellation]()
        first: str | None = None
        for wanted in messages:
            if isinstance(wanted, Cancellation):
                sealed.append(wanted)
                continue
            message = wanted.command if isinstance(wanted, Scheduled) else wanted
            refuse_undeclared(message, self.service.emits, f"A transaction of {self.service.name}")
            contract = contract_of(message)
            # Not derived from the key. The record keeps the id for every resend, and a key that is
            # forgotten here and used again must not look like a duplicate to who remembers longer.
            id = str(self.ports.randomness.uuid())
            metadata = Metadata(
                id=id,
                type=contract.name,
                version=contract.version,
                time=now,
                correlation_id=first or id,
                traceparent=self._tracer.current(),
            )
            first = first or id
            sealed.append(sealed_as(wanted, metadata))
        return sealed


@asynccontextmanager
async def connect(
    service: Service,
    ports: Ports | None = None,
    observer: Observer | None = None,
    tracer: Tracer | None = None,
) -> AsyncIterator[Connection]:
    """A service to write to and read from; without `ports`, the environment says which AWS.

        async with connect(order) as service:
            async with service.transaction(key=request_id) as tx:
                tx.put(Order(…))
                tx.publish(OrderPlaced(…))

    Raises `ConfigurationError`, `NoTable`, and `NotProvisioned` if the service publishes events
    and its bus does not exist.
    """
    async with AsyncExitStack() as stack:
        if ports is None:
            ports = await stack.enter_async_context(open_ports())
        connection = Connection(service, ports, observer, tracer)
        await require_bus(service, ports, service.emits)
        stack.push_async_callback(connection.close)
        yield connection


def _repeated(record: Record, key: str, content: str | None) -> AlreadyDone | KeyReused:
    if content is not None and record.content is not None and content != record.content:
        return KeyReused(
            f"The key {key!r} was used before, for something else; nothing was written. Take a new "
            "key, or send what it was used for."
        )
    answer = None if record.answer is None else orjson.loads(record.answer)
    return AlreadyDone(
        f"What the key {key!r} stands for was done before; nothing was written.", answer=answer
    )
