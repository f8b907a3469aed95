"""The fate of one delivery, from bytes to outcome. Read `Pipeline.consume` first.

Lambda and the worker both run this and nothing else; they differ only in where deliveries
come from and in how an outcome is carried out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from headrace.codec import Codec
from headrace.commit import NextInLine, Unmet
from headrace.context import Context, bind, identify
from headrace.dead_letter import is_redriven, noted
from headrace.envelope import (
    Cancellation,
    Envelope,
    Outgoing,
    caused_metadata,
    derived_id,
)
from headrace.errors import (
    CloudError,
    Conflict,
    DecodeError,
    DefinitionError,
    LeaseHeld,
    NoTable,
    NotProvisioned,
    UnknownSaga,
)
from headrace.events import Event, Message, MessageType
from headrace.group import GroupCommit
from headrace.inbox import Committed, Inbox, Unrecorded
from headrace.invoke import Invoker
from headrace.lease import Lease
from headrace.middleware import Invocation
from headrace.observer import Guarded, Handled, Observer, Unobserved
from headrace.outbox import Outbox, sealed_as
from headrace.outcome import Ack, DeadLetter, Outcome, Retry, combine
from headrace.parking import Parking
from headrace.policy import ELSEWHERE, reason_of
from headrace.ports import Delivery, Ports, Randomness
from headrace.reads import SharedReads
from headrace.record import Record
from headrace.retrying import retried
from headrace.service import Handler, OnHeld, Service
from headrace.tracing import Trace, Tracer, safe
from headrace.transaction import Effects, Refusal, Scheduled, Transaction, Wanted

logger = logging.getLogger(__name__)

COMMIT_ATTEMPTS = 8
"""Runs of a handler within one delivery that end in a conflict with a writer elsewhere, before
the message comes again."""

TURNS = 100
"""Runs within one delivery that another delivery of this process gets ahead of, or that find a
condition of the handler refused. Each time one of them is done, so the line grows shorter."""


_CLOSING = 3.0
"""Seconds to wait for AWS at the end, of the little time that a host has for its stop."""


@dataclass(slots=True)
class Work:
    """One handler and one delivery of what it takes, under a lease if it asks for one."""

    handler: Handler
    envelope: Envelope[Message]
    delivery: Delivery
    lease: Lease | None
    trace: Trace
    conflicts: int = 0
    is_head: bool = False
    """Whether its message group waits behind it already."""

    @property
    def consumer(self) -> str:
        return self.handler.consumer

    @property
    def event_id(self) -> str:
        return self.envelope.metadata.id


class Pipeline:
    """One service at work: its handlers, and what they need to take effect."""

    def __init__(
        self,
        service: Service,
        ports: Ports,
        resources: Any,
        observer: Observer,
        tracer: Tracer | None = None,
    ) -> None:
        self.service = service
        self.ports = ports
        self.observer = observer
        self.tracer = safe(tracer)
        self._told = Guarded(observer)
        self._codecs: dict[str, Codec] = {}
        self._invoker = Invoker(service, resources)
        self._reads = SharedReads(ports.store)
        self._group = GroupCommit(
            ports.store,
            ports.randomness,
            together=service.group_commit,
            committed=lambda count: self._told.committed(service.name, count),
        )
        self._outbox = Outbox(service.name, service.bus, ports, observer)
        self._parking = (
            None
            if service.table is None
            else Parking(ports.store, self._reads, ports.clock, ports.randomness, service.table)
        )
        self._unrecorded = Unrecorded(self._group, ports.clock, ports.randomness)
        self._inbox = (
            None
            if service.table is None
            else Inbox(
                ports.store,
                self._group,
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
            if self._may_be_known_elsewhere(error, delivery):
                return Retry(reason_of(error), ELSEWHERE, error=error)
            return DeadLetter(reason_of(error), error=error)
        with self.tracer.delivery(self.service.name, envelope.metadata, delivery) as trace:
            identify(envelope.metadata, trace.traceparent)
            self._told.decoded(self.service.name, envelope)
            outcome = await self._consume(envelope, delivery, trace)
            trace.ended(outcome)
            return outcome

    def _may_be_known_elsewhere(self, error: DecodeError, delivery: Delivery) -> bool:
        """Whether another worker of this service may take the message: while the first version
        with a saga is deployed, those of the one before see its timers."""
        last = delivery.receive_count >= self.service.queue_settings.max_receive_count - 1
        return isinstance(error, UnknownSaga) and not last

    async def _consume(
        self, envelope: Envelope[Message], delivery: Delivery, trace: Trace
    ) -> Outcome:
        works = [
            Work(handler, envelope, delivery, self._lease(handler, envelope.metadata.id), trace)
            for handler in self._takers(envelope.message, delivery)
        ]
        # Side by side, so that one that is slow every time does not keep the others from it; and in
        # tasks of their own, whose cancellation holds even where a handler swallows it.
        outcomes = await asyncio.gather(*map(self._handle, works))
        if self._leaves_for_good(works, outcomes):
            outcomes = [_given_up(own, envelope, delivery) for own in outcomes]
        outcome = combine(outcomes)
        if isinstance(outcome, DeadLetter):
            # Not before all agree: who has given up must do so again when the others are done.
            parted = zip(works, outcomes, strict=True)
            # Before the message leaves the queue, and those behind it in its group come.
            failed = await asyncio.gather(*(self._block(work, own) for work, own in parted))
            if any(failed):
                return combine(filter(None, failed))
            await asyncio.gather(*(work.lease.forget() for work in works if work.lease))
        return outcome

    def _leaves_for_good(self, works: Sequence[Work], outcomes: Sequence[Outcome]) -> bool:
        """Whether SQS would move this message when it comes next, while those behind it have to
        wait for it: nobody could block its message group then."""
        return any(
            work.delivery.receive_count >= self.service.queue_settings.max_receive_count
            and self._parking_of(work) is not None
            and not isinstance(outcome, Ack)
            for work, outcome in zip(works, outcomes, strict=True)
        )

    def _takers(self, message: Message, delivery: Delivery) -> list[Handler]:
        """The handlers for a message; the one it was parked for, if it was replayed to that."""
        of_type = self.service.handlers_for(delivery.queue, type(message))
        handlers = [handler for handler in of_type if handler.accepts(message)]
        consumer = noted(delivery, "consumer")
        return [h for h in handlers if h.consumer == consumer] or handlers

    async def flush(self) -> None:
        """Send what was handed over and not waited for: a host that may be frozen after its
        answer does so before."""
        if self._inbox is not None:
            await self._inbox.flush()

    async def close(self) -> None:
        """Wait until everything that was handed over has been answered, for a moment: what is not
        by then is found in the records when its message comes again."""
        self._invoker.close()
        try:
            async with asyncio.timeout(_CLOSING):
                await self._reads.flush()
                await self._group.flush()
                await self._outbox.flush()
                await self.flush()
        except TimeoutError:
            logger.warning("AWS does not answer, so %s is closed without it.", self.service.name)

    async def _handle(self, work: Work) -> Outcome:
        handler, metadata, delivery = work.handler, work.envelope.metadata, work.delivery
        time = asyncio.get_running_loop().time
        began, age = time(), self._age(delivery) if self._told.watches else None
        context = Context(
            self.service.name, handler.name, metadata, delivery, work.trace.traceparent
        )
        with bind(context):
            outcome = await self._outcome(work)
        if self._told.watches:
            seconds = time() - began
            handled = Handled(handler.name, metadata.type, outcome, seconds, age, work.conflicts)
            self._told.handled(self.service.name, handled)
        return outcome

    async def _outcome(self, work: Work) -> Outcome:
        parking = self._parking_of(work)
        outcome: Outcome | None = None
        try:
            if parking is not None:
                outcome = await parking.standing(work.consumer, work.delivery, work.event_id)
                work.is_head = isinstance(outcome, DeadLetter)
            if outcome is None:
                outcome = await self._take_effect(work)
        except Exception as error:  # the policy knows what each means
            outcome = self._decided(work, error)
        if isinstance(outcome, DeadLetter):
            return replace(outcome, correlation_id=work.envelope.metadata.correlation_id)
        return outcome

    async def _block(self, work: Work, outcome: Outcome) -> Retry | None:
        """Have the message group wait behind what its handler gave up; a `Retry` if it cannot."""
        parking = self._parking_of(work)
        if parking is None or work.is_head or not isinstance(outcome, DeadLetter):
            return None
        try:
            await parking.block(work.consumer, work.delivery, work.event_id, outcome.reason)
        except Exception as error:
            again = self._decided(work, error)
            return again if isinstance(again, Retry) else Retry(again.reason, None, work.consumer)
        return None

    def _decided(self, work: Work, error: Exception) -> Retry | DeadLetter:
        handler, delivery = work.handler, work.delivery
        return handler.policy.decide(
            error,
            receive_count=delivery.receive_count,
            attempts=self._attempts(handler, delivery),
            failures=None if work.lease is None else work.lease.failures,
            randomness=self.ports.randomness,
            handler=handler.consumer,
        )

    def _parking_of(self, work: Work) -> Parking | None:
        in_a_group = work.delivery.fifo and work.delivery.group_id is not None
        return self._parking if work.handler.park and in_a_group else None

    def _age(self, delivery: Delivery) -> timedelta | None:
        if delivery.sent_at is None:
            return None
        return max(self.ports.clock.now() - delivery.sent_at, timedelta(0))

    def _attempts(self, handler: Handler, delivery: Delivery) -> int:
        """How many attempts a message gets. One, where an operator has sent it back and waits to
        see what becomes of it. In a FIFO group a message is received with those that hold it back
        and not tried, so there only the queue's own limit says anything, unless a lease counts the
        failures themselves."""
        if is_redriven(delivery):
            return 1
        if delivery.fifo and handler.lease is None:
            return max(1, self.service.queue_settings.max_receive_count - 1)
        return handler.policy.attempts

    async def _take_effect(self, work: Work) -> Ack:
        """Commit, then send what the commit caused, then note that it is out."""
        inbox = self._inbox_of(work.handler)
        try:
            committed = await self._committed(inbox, work)
        except LeaseHeld:
            raise
        except Exception:
            # A handler may fail because its effects stand already: it finds what it wrote itself.
            # Or the commit went through and its answer was lost. Either way go on with the record.
            standing = await _standing(inbox, work)
            if standing is None:
                raise
            committed = Committed(standing, duplicate=True)
        self._tell(committed.record)
        if committed.record.outgoing:
            with work.trace.step("dispatch", work.consumer):
                await self._outbox.dispatch(committed.record.outgoing)
        inbox.mark_done(committed.record)
        return Ack(duplicate=committed.duplicate)

    def _tell(self, record: Record) -> None:
        """Tell of what the record says until it is done: so whoever finds it after a process died
        tells as well."""
        if record.done or record.trail is None:
            return
        for remark in record.trail.remarks:
            self._told.saga(self.service.name, remark)
            if remark.status == "stuck":
                logger.error(
                    "The saga %s.%s of %r is stuck, and waits for somebody (%s): see `headrace "
                    "saga show`.",
                    self.service.name,
                    remark.saga,
                    remark.key,
                    remark.reason,
                )

    async def _committed(self, inbox: Inbox | Unrecorded, work: Work) -> Committed:
        lease = work.lease
        if lease is None:
            return await self._commit(inbox, work)
        try:
            waits = work.handler.on_held is OnHeld.WAIT
            standing = await (lease.wait() if waits else lease.take())
            return standing or await self._commit(inbox, work)
        except LeaseHeld:
            raise
        except BaseException as error:
            # What may be at work still, in a thread, the lease keeps others from.
            at_work = self._invoker.is_at_work(work.handler, work.event_id)
            failed = work.handler.policy.counts(error)
            if failed or not at_work:
                await lease.release(failed=failed, at_work=at_work)
            raise

    async def _commit(self, inbox: Inbox | Unrecorded, work: Work) -> Committed:
        """Run the handler and commit; when an item changed under it, run it again."""
        lease = work.lease
        began = self.ports.clock.now()
        refused: list[Refusal] = []

        async def attempt() -> Committed:
            nonlocal refused
            async with lease.kept() if lease else nullcontext():
                with work.trace.step("handler", work.consumer):
                    effects = await self._run(work, began, refused)
            told, refused = refused, []
            outgoing = self._seal(work, effects.messages)
            _refuse_unrecorded(work.handler, effects)
            record = inbox.new_record(work.consumer, work.event_id, outgoing, effects.trail)
            if effects.nothing and work.handler.pure and not is_redriven(work.delivery):
                # To run again, and want nothing again, costs less than to remember this. Of what
                # was sent back an operator wants to see that it is done. But it may want nothing
                # because it was done, by a process that died before it sent anything.
                standing = await inbox.find(work.consumer, work.event_id)
                return Committed(standing or record, duplicate=standing is not None)
            try:
                with work.trace.step("commit", work.consumer):
                    return await inbox.commit(
                        record,
                        effects.actions,
                        conditional=effects.conditional,
                        holder=lease.holder if lease else None,
                    )
            except Unmet as unmet:
                # What it does instead may have conditions too: it is told of all of them.
                refused = [*told, *unmet.refused]
                raise
            except Conflict:
                work.conflicts += 1
                raise

        patience = _Patience(self.ports.randomness)
        return await retried(attempt, again=_is_conflict, stop=patience.ends, wait=patience.pause)

    async def _run(self, work: Work, began: datetime, refused: Sequence[Refusal]) -> Effects:
        """One run of the handler, inside its middleware: what it wants written and sent."""
        transaction = Transaction(
            self._reads,
            table=self.service.table,
            idempotency_key=f"{work.consumer}#{work.event_id}",
            now=began,
            refused=refused,
        )
        invocation = Invocation(
            self.service.name, work.handler.name, work.envelope, work.delivery, transaction
        )
        try:
            transaction.publish(*await self._invoker.run(work.handler, invocation))
        finally:
            effects = transaction.close()
        return effects

    def _seal(self, work: Work, messages: Sequence[Wanted]) -> list[Outgoing | Cancellation]:
        now, cause = self.ports.clock.now(), work.envelope.metadata
        traceparent = work.trace.traceparent
        sealed: list[Outgoing | Cancellation] = []
        for index, wanted in enumerate(messages):
            if isinstance(wanted, Cancellation):
                sealed.append(wanted)
                continue
            message = wanted.command if isinstance(wanted, Scheduled) else wanted
            refuse_undeclared(message, work.handler.emits, f"The handler {work.consumer}")
            id = derived_id(work.consumer, cause.id, self._place(work.handler, index, message))
            metadata = caused_metadata(
                message, id=id, now=now, cause=cause, traceparent=traceparent
            )
            sealed.append(sealed_as(wanted, metadata))
        return sealed

    def _place(self, handler: Handler, index: int, message: Message) -> str:
        """What tells the messages of one cause apart. Without a record, another run may send
        something else in this place, which must not look like a duplicate."""
        return f"{index} {message.model_dump_json()}" if handler.idempotent else str(index)

    def _lease(self, handler: Handler, event_id: str) -> Lease | None:
        if handler.lease is None or self._inbox is None:
            return None
        return Lease(
            self.ports.store,
            self._inbox,
            self.ports.clock,
            self.ports.randomness,
            consumer=handler.consumer,
            event_id=event_id,
            time=handler.lease,
        )

    def _codec(self, queue: str) -> Codec:
        codec = self._codecs.get(queue)
        if codec is None:
            codec = self._codecs[queue] = self.service.codec(queue)
        return codec

    def _inbox_of(self, handler: Handler) -> Inbox | Unrecorded:
        if handler.idempotent:
            return self._unrecorded
        if self._inbox is None:
            raise NoTable(
                f"The handler {handler.consumer} needs a table for its inbox record: write "
                f'Service({self.service.name!r}, table="…"), or mark it idempotent=True.'
            )
        return self._inbox


def _given_up(outcome: Outcome, envelope: Envelope[Message], delivery: Delivery) -> Outcome:
    if not isinstance(outcome, Retry):
        return outcome
    return DeadLetter(
        f"Gave up after {delivery.receive_count} receives, as SQS gives it out no more: "
        f"{outcome.reason}",
        outcome.handler,
        outcome.error,
        envelope.metadata.correlation_id,
        gave_up=True,
    )


async def _standing(inbox: Inbox | Unrecorded, work: Work) -> Record | None:
    try:
        return await inbox.find(work.consumer, work.event_id)
    except CloudError as error:
        # What went wrong before says more, and the next delivery looks again.
        logger.warning("Whether %s stands could not be seen: %s", work.event_id, error)
        return None


def _refuse_unrecorded(handler: Handler, effects: Effects) -> None:
    """Without a record, nobody would send the messages if the process died after the writes, and
    the next run might find its own writes and have nothing to say."""
    if handler.idempotent and effects.actions and effects.messages:
        raise DefinitionError(
            f"The handler {handler.consumer} is idempotent=True, and both writes and publishes: "
            "leave idempotent=True out, so that a record keeps the two together."
        )


class _Patience:
    """How often, and how soon, a handler runs again after conflicts."""

    def __init__(self, randomness: Randomness) -> None:
        self._randomness = randomness
        self._elsewhere = 0

    def pause(self, attempt: int, error: BaseException | None) -> float:
        # The next run begins with one less in its way, and nobody interfered.
        if isinstance(error, (NextInLine, Unmet)):
            return 0
        self._elsewhere += 1
        return self._randomness.uniform(0, min(0.5, 0.02 * 2**self._elsewhere))

    def ends(self, attempt: int) -> bool:
        return self._elsewhere >= COMMIT_ATTEMPTS or attempt >= TURNS


def _is_conflict(error: BaseException) -> bool:
    return isinstance(error, Conflict)


@asynccontextmanager
async def running(
    service: Service,
    ports: Ports,
    observer: Observer | None = None,
    tracer: Tracer | None = None,
) -> AsyncIterator[Pipeline]:
    """A service with its resources open; on leaving, everything is flushed, then closed.

    Raises `NotProvisioned` if it publishes events and its bus does not exist.
    """
    async with AsyncExitStack() as stack:
        # What the relay sends counts as well as what handlers do.
        emitted = {cls for handler in service.handlers for cls in handler.emits}
        await require_bus(service, ports, emitted | service.emits)
        resources = None
        if service.resources is not None:
            resources = await stack.enter_async_context(service.resources())
        pipeline = Pipeline(service, ports, resources, observer or Unobserved(), tracer)
        stack.push_async_callback(pipeline.close)
        yield pipeline


async def require_bus(service: Service, ports: Ports, emitted: Iterable[MessageType]) -> None:
    """Raises `NotProvisioned` if events are emitted and the bus of the service does not exist:
    EventBridge takes an event for such a bus, says yes, and loses it."""
    if not any(issubclass(cls, Event) for cls in emitted):
        return
    try:
        await ports.bus.require(service.bus)
    except NotProvisioned:
        raise
    except CloudError as error:
        # Throttled, or a role that may put events and not describe the bus: that says nothing.
        logger.warning("Whether the bus %r exists could not be seen: %s", service.bus, error)


def refuse_undeclared(message: Message, emits: frozenset[MessageType], who: str) -> None:
    """Raises `DefinitionError` for a message that `who` sends and does not declare."""
    if not isinstance(message, tuple(emits)):
        name = type(message).__name__
        raise DefinitionError(
            f"{who} publishes {name} without declaring it: add {name} to a handler's return "
            f"annotation, or write emits=[{name}] in on(…), or in Service(…) for what is published "
            "outside of handlers. Rules and permissions are made from what is declared."
        )
