"""The fate of one delivery, from bytes to outcome. Read `Pipeline.consume` first.

Lambda and the worker both run this and nothing else; they differ only in where deliveries
come from and in how an outcome is carried out.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt

from headrace.coalesce import Coalescer
from headrace.codec import Codec
from headrace.context import Context, bind
from headrace.envelope import Envelope, Metadata, Outgoing, caused_metadata, derived_id, seal
from headrace.errors import (
    CloudError,
    Conflict,
    DecodeError,
    DefinitionError,
    NoTable,
    NotProvisioned,
    Refused,
)
from headrace.events import Event, Message
from headrace.inbox import Committed, Inbox, Unrecorded
from headrace.invoke import Invoker
from headrace.limits import BATCH_GET_KEYS
from headrace.middleware import Invocation
from headrace.observer import Observer, Unobserved
from headrace.outbox import Outbox, refuse_unsendable
from headrace.outcome import Ack, DeadLetter, Outcome, combine
from headrace.policy import reason_of
from headrace.ports import Action, Delivery, Item, ItemKey, Ports
from headrace.service import Handler, Service
from headrace.transaction import Transaction

logger = logging.getLogger(__name__)

COMMIT_ATTEMPTS = 8
"""Runs of a handler on fresh reads within one delivery, before the message comes again."""


class Pipeline:
    """One service at work: its handlers, and what they need to take effect."""

    def __init__(self, service: Service, ports: Ports, resources: Any, observer: Observer) -> None:
        self.service = service
        self.ports = ports
        self.observer = observer
        self._codecs: dict[str, Codec] = {}
        self._invoker = Invoker(service, resources)
        self._reads: Coalescer[ItemKey, Item | None] = Coalescer(
            self._read_items, max_entries=BATCH_GET_KEYS
        )
        self._outbox = Outbox(
            service.name, service.bus, ports.bus, ports.queues, ports.randomness, observer
        )
        self._unrecorded = Unrecorded(ports.store, ports.clock, ports.randomness)
        self._inbox = (
            None
            if service.table is None
            else Inbox(
                ports.store,
                ports.clock,
                ports.randomness,
                table=service.table,
                keep=service.redelivery_horizon,
            )
        )

    async def consume(self, delivery: Delivery) -> Outcome:
        """Handle one delivery and say what is to become of its message.

        Every handler of the event runs and commits on its own. Nothing is raised but
        cancellation, after which the delivery counts as not handled.
        """
        try:
            envelope = self._codec(delivery.queue).decode(delivery)
        except DecodeError as error:
            return DeadLetter(reason_of(error), error=error)
        return combine(
            [
                await self._handle(handler, envelope, delivery)
                for handler in self.service.handlers_of(delivery.queue)
                if handler.accepts(envelope.message)
            ]
        )

    async def close(self) -> None:
        """Wait until everything that was handed over has been answered."""
        self._invoker.close()
        await self._reads.flush()
        await self._outbox.flush()
        if self._inbox is not None:
            await self._inbox.flush()

    async def _handle(
        self, handler: Handler, envelope: Envelope[Message], delivery: Delivery
    ) -> Outcome:
        metadata = envelope.metadata
        with bind(Context(self.service.name, handler.name, metadata, delivery)):
            try:
                return await self._take_effect(handler, envelope, delivery)
            except Exception as error:  # the policy knows what each means
                outcome = handler.policy.decide(
                    error,
                    receive_count=delivery.receive_count,
                    attempts=self._attempts(handler, delivery),
                    randomness=self.ports.randomness,
                    handler=handler.consumer,
                )
        if isinstance(outcome, DeadLetter):
            return replace(outcome, correlation_id=metadata.correlation_id)
        return outcome

    def _attempts(self, handler: Handler, delivery: Delivery) -> int:
        """How many receives a message gets. In a FIFO group a message is received with those
        that hold it back and not tried, so there only the queue's own limit says anything."""
        if delivery.fifo:
            return self.service.queue_settings.max_receive_count - 1
        return handler.policy.attempts

    async def _take_effect(
        self, handler: Handler, envelope: Envelope[Message], delivery: Delivery
    ) -> Ack:
        """Commit, then send what the commit caused, then note that it is out."""
        inbox = self._inbox_of(handler)
        try:
            committed = await self._commit(inbox, handler, envelope, delivery)
        except Exception:
            # A handler may fail because its effects stand already: it finds what it wrote itself.
            # Or the commit went through and its answer was lost. Either way go on with the record.
            standing = await inbox.find(handler.consumer, envelope.metadata.id)
            if standing is None:
                raise
            committed = Committed(standing, duplicate=True)
        await self._outbox.dispatch(committed.record.outgoing)
        await inbox.mark_done(committed.record)
        return Ack(duplicate=committed.duplicate)

    async def _commit(
        self,
        inbox: Inbox | Unrecorded,
        handler: Handler,
        envelope: Envelope[Message],
        delivery: Delivery,
    ) -> Committed:
        """Run the handler and commit; when an item changed under it, run it again."""
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(Conflict),
            stop=stop_after_attempt(COMMIT_ATTEMPTS),
            wait=self._wait_after_conflict,
            reraise=True,
        ):
            with attempt:
                actions, outgoing = await self._run(handler, envelope, delivery)
                return await inbox.commit(handler.consumer, envelope.metadata.id, actions, outgoing)
        raise AssertionError("tenacity either returns from the block or raises")

    async def _run(
        self, handler: Handler, envelope: Envelope[Message], delivery: Delivery
    ) -> tuple[list[Action], list[Outgoing]]:
        """One run of the handler, inside its middleware: what it wants written and sent."""
        transaction = Transaction(
            self._reads.add,
            table=self.service.table,
            idempotency_key=f"{handler.consumer}#{envelope.metadata.id}",
        )
        invocation = Invocation(self.service.name, handler.name, envelope, delivery, transaction)
        try:
            transaction.publish(*await self._invoker.run(handler, invocation))
        finally:
            actions, messages = transaction.close()
        return actions, self._seal(handler, envelope.metadata, messages)

    def _seal(
        self, handler: Handler, cause: Metadata, messages: Sequence[Message]
    ) -> list[Outgoing]:
        now = self.ports.clock.now()
        sealed = []
        for index, message in enumerate(messages):
            _refuse_undeclared(handler, message)
            id = derived_id(handler.consumer, cause.id, self._place(handler, index, message))
            sealed.append(seal(message, caused_metadata(message, id=id, now=now, cause=cause)))
            refuse_unsendable(sealed[-1])
        return sealed

    def _place(self, handler: Handler, index: int, message: Message) -> str:
        """What tells the messages of one cause apart. Without a record, another run may send
        something else in this place, which must not look like a duplicate."""
        return f"{index} {message.model_dump_json()}" if handler.idempotent else str(index)

    def _codec(self, queue: str) -> Codec:
        codec = self._codecs.get(queue)
        if codec is None:
            codec = self._codecs[queue] = self.service.codec(queue)
        return codec

    def _wait_after_conflict(self, state: RetryCallState) -> float:
        return self.ports.randomness.uniform(0, min(0.5, 0.02 * 2**state.attempt_number))

    def _inbox_of(self, handler: Handler) -> Inbox | Unrecorded:
        if handler.idempotent:
            return self._unrecorded
        if self._inbox is None:
            raise NoTable(
                f"The handler {handler.consumer} needs a table for its inbox record: write "
                f'Service({self.service.name!r}, table="…"), or mark it idempotent=True.'
            )
        return self._inbox

    async def _read_items(self, keys: Sequence[ItemKey]) -> list[Item | Exception | None]:
        # Two deliveries may read one item, and BatchGetItem refuses a key that comes twice.
        distinct = list(dict.fromkeys(keys))
        try:
            items: Sequence[Item | Exception | None] = await self.ports.store.get(distinct)
        except Refused:
            # For the fault of one key, perhaps: each delivery answers for its own.
            items = [await self._read_item(key) for key in distinct]
        found = dict(zip(distinct, items, strict=True))
        return [found[key] for key in keys]

    async def _read_item(self, key: ItemKey) -> Item | Exception | None:
        try:
            (item,) = await self.ports.store.get([key])
        except CloudError as error:
            return error
        return item


@asynccontextmanager
async def running(
    service: Service, ports: Ports, observer: Observer | None = None
) -> AsyncIterator[Pipeline]:
    """A service with its resources open; on leaving, everything is flushed, then closed.

    Raises `NotProvisioned` if it publishes events and its bus does not exist.
    """
    async with AsyncExitStack() as stack:
        await _require_bus(service, ports)
        resources = None
        if service.resources is not None:
            resources = await stack.enter_async_context(service.resources())
        pipeline = Pipeline(service, ports, resources, observer or Unobserved())
        stack.push_async_callback(pipeline.close)
        yield pipeline


async def _require_bus(service: Service, ports: Ports) -> None:
    """EventBridge takes an event for a bus that does not exist, says yes, and loses it."""
    if not any(issubclass(cls, Event) for handler in service.handlers for cls in handler.emits):
        return
    try:
        await ports.bus.require(service.bus)
    except NotProvisioned:
        raise
    except CloudError as error:
        # Throttled, or a role that may put events and not describe the bus: that says nothing.
        logger.warning("Whether the bus %r exists could not be seen: %s", service.bus, error)


def _refuse_undeclared(handler: Handler, message: Message) -> None:
    if not isinstance(message, tuple(handler.emits)):
        name = type(message).__name__
        raise DefinitionError(
            f"The handler {handler.consumer} publishes {name} without declaring it: add {name} to "
            f"its return annotation, or write on(…, emits=[{name}]). Rules and permissions are "
            "made from what handlers declare."
        )
