"""Faults of AWS that messages bring along: the same ones, in the same way, on every host.

The id of an event may end in marks, `worker/7/a!bus-refuses@1!`, and so may the name of an account.
Where a call is about such a name, the fault bites: `*2` twice at most, `@1` as long as the message
was received no more than once. The kinds are in `KINDS`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final, NoReturn
from uuid import UUID, uuid4

from headrace.errors import ConditionFailed, Refused, Throttled, Unreachable
from headrace.ports import (
    Action,
    Bus,
    BusEntry,
    Delete,
    Delivery,
    EntryFailure,
    Item,
    ItemKey,
    Page,
    Ports,
    Put,
    QueueDepth,
    QueueEntry,
    Queues,
    Store,
    Update,
)
from tests.parity.journal import JOURNAL, Entry
from tests.parity.stage import STAGE

KINDS: Final = {
    "store-refuses": "a transaction or a write is refused for good",
    "store-throttles": "a transaction or a write is throttled",
    "store-loses": "a transaction or a write takes place, and its answer is lost",
    "store-goes": "as store-loses, and from then on nothing is answered",
    "store-down": "no read and no write is answered",
    "store-hangs": "a transaction takes place, and is not answered before its message is back",
    "store-overtakes": "another writer changes the account just before the transaction",
    "mark-down": "the note that everything is out cannot be written",
    "mark-busy": "the note that everything is out is left unprocessed",
    "bus-refuses": "the bus refuses the entry, for good",
    "bus-throttles": "the bus refuses the entry, for now",
    "bus-down": "PutEvents is not answered",
    "bus-loses": "PutEvents takes place, and its answer is lost",
    "bus-hangs": "PutEvents takes place, and is not answered before its message is back",
    "send-refuses": "the queue of a command's owner refuses the entry, for good",
    "send-throttles": "the queue of a command's owner refuses the entry, for now",
    "letter-refuses": "the dead-letter queue refuses the copy, for good",
    "letter-down": "the dead-letter queue does not answer",
    "delete-refuses": "the message is not deleted",
    "delete-down": "DeleteMessageBatch is not answered",
    "hide-refuses": "the message's visibility is not changed",
    "hide-down": "ChangeMessageVisibilityBatch is not answered",
}

MARK: Final = re.compile(r"[\w/-]+!(?P<kind>[a-z-]+)(?:\*(?P<times>\d+))?(?:@(?P<receives>\d+))?!")


class Faults:
    """The faults of one process: what bit how often, and how often each message was received."""

    def __init__(self) -> None:
        self._receipts: dict[str, Delivery] = {}
        self._receives: dict[str, int] = {}
        self._bites: Counter[str] = Counter()

    def learn(self, delivery: Delivery) -> None:
        """A message was received; what it brings along is in its body."""
        self._receipts[delivery.receipt_handle] = delivery
        for mark in MARK.finditer(delivery.body):
            self._receives[mark[0]] = delivery.receive_count

    def received(self, receipt: str) -> Delivery:
        return self._receipts[receipt]

    def bites(self, kind: str, *texts: str) -> list[str]:
        """The names in these texts that a fault of this kind befalls, which is noted; if there is
        one, it befalls the call."""
        marks = {m[0]: m for text in texts for m in MARK.finditer(text) if m["kind"] == kind}
        biting = [name for name, mark in marks.items() if self._is_due(mark)]
        for name in biting:
            self._bites[name] += 1
            JOURNAL.note(Entry("bit", name, kind))
        return biting

    def has_bitten(self, kind: str, *texts: str) -> bool:
        marks = [m for text in texts for m in MARK.finditer(text) if m["kind"] == kind]
        return any(self._bites[mark[0]] for mark in marks)

    def _is_due(self, mark: re.Match[str]) -> bool:
        too_often = mark["times"] and self._bites[mark[0]] >= int(mark["times"])
        too_late = mark["receives"] and self._receives.get(mark[0], 1) > int(mark["receives"])
        return not (too_often or too_late)


def faulty(ports: Ports, faults: Faults) -> Ports:
    """The ports, with faults in them, and without chance."""
    return replace(
        ports,
        queues=FaultyQueues(ports.queues, faults),
        bus=FaultyBus(ports.bus, faults),
        store=FaultyStore(ports.store, faults),
        randomness=Unhurried(),
    )


class Unhurried:
    """Chance that makes short waits shortest and long ones longest: nothing comes again while a
    case looks, and no case waits for a jitter."""

    def uuid(self) -> UUID:
        return uuid4()

    def uniform(self, low: float, high: float) -> float:
        return high if high >= 60 else low


def unanswered() -> NoReturn:
    raise Unreachable("No answer came back.")


async def _too_late(name: str) -> NoReturn:
    """What bears this name is handed back before there is an answer."""
    await STAGE.heard(handed_back(name))
    unanswered()


def handed_back(name: str) -> str:
    """The bell that is rung then."""
    return f"{name} is handed back"


# --- queues ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FaultyQueues:
    inner: Queues
    faults: Faults

    async def receive(
        self, queue: str, *, limit: int, wait: timedelta, visibility: timedelta | None = None
    ) -> list[Delivery]:
        found = await self.inner.receive(queue, limit=limit, wait=wait, visibility=visibility)
        for delivery in found:
            self.faults.learn(delivery)
        return found

    async def send(self, queue: str, entries: Sequence[QueueEntry]) -> list[EntryFailure]:
        kind = "letter" if "-dlq" in queue else "send"
        bodies = [entry.body for entry in entries]
        if self.faults.bites(f"{kind}-down", *bodies):
            unanswered()
        return await _partly(entries, bodies, self._refusal(kind), self._sending(queue))

    async def delete(self, queue: str, receipts: Sequence[str]) -> list[EntryFailure]:
        bodies = [self.faults.received(receipt).body for receipt in receipts]
        if self.faults.bites("delete-down", *bodies):
            unanswered()

        async def delete(rest: Sequence[str]) -> list[EntryFailure]:
            return await self.inner.delete(queue, rest)

        return await _partly(receipts, bodies, self._refusal("delete"), delete)

    async def change_visibility(
        self, queue: str, changes: Sequence[tuple[str, timedelta]]
    ) -> list[EntryFailure]:
        bodies = [self.faults.received(receipt).body for receipt, _ in changes]
        if self.faults.bites("hide-down", *bodies):
            unanswered()

        async def change(rest: Sequence[tuple[str, timedelta]]) -> list[EntryFailure]:
            for receipt, hidden in rest:
                self._note(self.faults.received(receipt), hidden)
            return await self.inner.change_visibility(queue, rest)

        return await _partly(changes, bodies, self._refusal("hide"), change)

    async def depth(self, queue: str) -> QueueDepth:
        return await self.inner.depth(queue)

    def _note(self, delivery: Delivery, hidden: timedelta) -> None:
        JOURNAL.note(Entry("hid", delivery.message_id, seconds=hidden.total_seconds()))
        if not hidden:
            for mark in MARK.finditer(delivery.body):
                STAGE.ring(handed_back(mark[0]))

    def _refusal(self, kind: str) -> Callable[[str], EntryFailure | None]:
        def refusal(body: str) -> EntryFailure | None:
            if self.faults.bites(f"{kind}-refuses", body):
                return EntryFailure(0, "AccessDenied", "not yours", retryable=False)
            if self.faults.bites(f"{kind}-throttles", body):
                return EntryFailure(0, "RequestThrottled", "too many", retryable=True)
            return None

        return refusal

    def _sending(self, queue: str) -> Callable[[Sequence[QueueEntry]], Any]:
        return lambda rest: self.inner.send(queue, rest)


async def _partly(
    entries: Sequence[Any],
    texts: Sequence[str],
    refusal: Callable[[str], EntryFailure | None],
    call: Callable[[Sequence[Any]], Any],
) -> list[EntryFailure]:
    """A batch call in which some entries are refused and the others go through."""
    refused = {i: found for i, text in enumerate(texts) if (found := refusal(text)) is not None}
    rest = [index for index in range(len(entries)) if index not in refused]
    answers = await call([entries[index] for index in rest]) if rest else []
    return [
        *(replace(failure, index=index) for index, failure in refused.items()),
        *(replace(failure, index=rest[failure.index]) for failure in answers),
    ]


# --- bus -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FaultyBus:
    inner: Bus
    faults: Faults

    async def put(self, bus: str, entries: Sequence[BusEntry]) -> list[EntryFailure]:
        details = [entry.detail for entry in entries]
        if self.faults.bites("bus-down", *details):
            unanswered()

        async def put(rest: Sequence[BusEntry]) -> list[EntryFailure]:
            return await self.inner.put(bus, rest)

        failures = await _partly(entries, details, self._refusal, put)
        if self.faults.bites("bus-loses", *details):
            unanswered()
        if hanging := self.faults.bites("bus-hangs", *details):
            await _too_late(hanging[0])
        return failures

    async def require(self, bus: str) -> None:
        await self.inner.require(bus)

    def _refusal(self, detail: str) -> EntryFailure | None:
        if self.faults.bites("bus-refuses", detail):
            return EntryFailure(0, "AccessDeniedException", "not yours", retryable=False)
        if self.faults.bites("bus-throttles", detail):
            return EntryFailure(0, "ThrottlingException", "too many", retryable=True)
        return None


# --- store -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FaultyStore:
    inner: Store
    faults: Faults

    async def get(self, keys: Sequence[ItemKey]) -> list[Item | None]:
        self._answer(*(key.pk for key in keys))
        return await self.inner.get(keys)

    async def transact(self, actions: Sequence[Action], *, token: str) -> None:
        names = [action.key.pk for action in actions]
        self._refuse(*names)
        if self.faults.bites("store-overtakes", *names):
            await self._overtake(actions)
        await self.inner.transact(actions, token=token)
        await self._lose(*names)

    async def change(self, action: Put | Update | Delete) -> None:
        self._refuse(action.key.pk)
        try:
            await self.inner.change(action)
        except ConditionFailed:
            STAGE.ring(f"{action.key.pk.rpartition('#')[2]} is held")
            raise
        await self._lose(action.key.pk)

    async def write(self, actions: Sequence[Put | Delete]) -> list[int]:
        names = [action.key.pk for action in actions]
        if self.faults.bites("mark-down", *names):
            unanswered()
        busy = {i for i, name in enumerate(names) if self.faults.bites("mark-busy", name)}
        rest = [index for index in range(len(actions)) if index not in busy]
        left = await self.inner.write([actions[index] for index in rest]) if rest else []
        return sorted([*busy, *(rest[index] for index in left)])

    async def query(self, *args: Any, **kwargs: Any) -> Page:
        return await self.inner.query(*args, **kwargs)

    def _answer(self, *names: str) -> None:
        """Raises if this call is one of those that nobody answers."""
        if self.faults.bites("store-down", *names):
            unanswered()
        gone = self.faults.has_bitten("store-goes", *names)
        if gone and self.faults.bites("store-goes", *names):
            unanswered()

    def _refuse(self, *names: str) -> None:
        self._answer(*names)
        if self.faults.bites("store-refuses", *names):
            raise Refused("It is not valid.", operation="Write", code="ValidationException")
        if self.faults.bites("store-throttles", *names):
            raise Throttled("There are too many.", operation="Write", code="ThrottlingException")

    async def _lose(self, *names: str) -> None:
        if self.faults.bites("store-loses", *names) or self.faults.bites("store-goes", *names):
            unanswered()
        if hanging := self.faults.bites("store-hangs", *names):
            await _too_late(hanging[0])

    async def _overtake(self, actions: Sequence[Action]) -> None:
        """Somebody else has booked into the account, each time one entry more."""
        for action in actions:
            if isinstance(action, Put) and action.key.pk.startswith("account#"):
                await self._book(action)

    async def _book(self, ahead: Put) -> None:
        entries = ahead.item["entries"]["L"]
        stranger = {"L": [*entries[:-1], {"S": "stranger"}]}
        # One version further than the transaction wants to find.
        await self.inner.write([Put(ahead.table, {**ahead.item, "entries": stranger})])
