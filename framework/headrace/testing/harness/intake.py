"""One queue of a service under test: what comes through it, and what it could not be rid of."""

from __future__ import annotations

from pydantic_core import to_json

from headrace.batch import Batch
from headrace.dead_letter import NOTE_ATTRIBUTE, original_id
from headrace.limits import SQS_ATTRIBUTES, SQS_BATCH_ENTRIES
from headrace.observer import Unobserved
from headrace.outcome import Ack, DeadLetter, Outcome, Retry
from headrace.pipeline import Pipeline
from headrace.ports import Attribute, Delivery, QueueEntry
from headrace.settle import Settler
from headrace.testing.letters import Letter, letter_of, name_of
from headrace.testing.memory import ManualClock, MemoryCloud
from headrace.topology.model import dead_letter_queue
from headrace.turns import Turns


class Intake:
    """Receives as Lambda does: a batch at a time, deleted by the host where nothing failed."""

    def __init__(self, cloud: MemoryCloud[ManualClock], pipeline: Pipeline, queue: str) -> None:
        self.queue = queue
        self.service = pipeline.service
        self._queues = cloud.queues
        self._randomness = cloud.randomness
        self._settler = Settler(
            cloud.queues, cloud.clock, cloud.randomness, deletes=False, linger=0
        )
        self._batch = Batch(
            pipeline.service.name,
            pipeline.consume,
            self._settle,
            turns=Turns(),
            observer=Unobserved(),
        )
        self._last: dict[str, Retry | DeadLetter] = {}
        self._handled: dict[str, Delivery] = {}

    async def run(self) -> bool:
        """Handle one batch of what can be received now, if there is anything."""
        deliveries = self._queues.receive_now(self.queue, limit=SQS_BATCH_ENTRIES)
        outcomes = await self._batch.run(deliveries)
        await self._settler.flush()
        done = [d for d in deliveries if isinstance(outcomes[d.message_id], (Ack, DeadLetter))]
        if done:
            self._queues.delete_now(self.queue, [d.receipt_handle for d in done])
        return bool(deliveries)

    async def _settle(self, delivery: Delivery, outcome: Outcome) -> Outcome:
        outcome = await self._settler.settle(delivery, outcome)
        if isinstance(outcome, Ack):
            self._handled[original_id(delivery)] = delivery
            self._last.pop(delivery.body, None)
        else:
            self._last[delivery.body] = outcome
        return outcome

    def redeliver(self) -> None:
        """Bring everything that was handled once more."""
        for delivery in self._handled.values():
            self._queues.deliver(self.queue, self._again(delivery))

    def _again(self, delivery: Delivery) -> QueueEntry:
        attributes = dict(delivery.attributes)
        if len(attributes) < SQS_ATTRIBUTES:
            # To SQS it is a new message. A body without an id of its own is known by its first one.
            known = to_json({"message_id": original_id(delivery)}).decode()
            attributes.setdefault(NOTE_ATTRIBUTE, Attribute(known, "String.json"))
        return QueueEntry(
            delivery.body,
            group_id=delivery.group_id,
            deduplication_id=str(self._randomness.uuid()) if delivery.fifo else None,
            trace_header=delivery.trace_header,
            attributes=attributes,
        )

    def left(self) -> str:
        """What is in the queue, for whoever wonders why."""
        entries = self._queues.peek(self.queue)
        holds = f"the queue {self.queue!r} holds {counted(len(entries), 'message')}"
        said = [self._why(entry) for entry in entries[:3]]
        return f"{holds} ({'; '.join(said)}{'; …' if len(entries) > 3 else ''})"

    def _why(self, entry: QueueEntry) -> str:
        last = self._last.get(entry.body)
        if last is None:
            return name_of(entry.body)
        who = f" by {last.handler}" if last.handler else ""
        return f"{name_of(entry.body)}, retried{who}: {last.reason}"

    def error(self) -> BaseException | None:
        """What the handler raised for the first message that is in the queue."""
        found = [self._last.get(entry.body) for entry in self._queues.peek(self.queue)]
        return next((last.error for last in found if last is not None), None)

    def letters(self) -> list[Letter]:
        """What is in the dead-letter queue, oldest first."""
        entries = self._queues.peek(dead_letter_queue(self.queue))
        return [letter_of(self.service, self.queue, e, self._last.get(e.body)) for e in entries]


def counted(number: int, what: str) -> str:
    return f"{number} {what}{'s'[: number != 1]}"
