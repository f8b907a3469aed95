"""A service, and messages for it of which one in ten is bad, in one of three ways."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Final, Literal, TypeAlias

from headrace import Backoff, Entity, Event, PoisonMessage, Policy, Service, Transaction
from headrace.ports import QueueEntry
from tests.load.common import entry

Kind: TypeAlias = Literal["good", "no json", "poison", "failing"]

BAD: Final[tuple[Kind, ...]] = ("no json", "poison", "failing")
BATCH: Final = 10
ATTEMPTS: Final = 3


class Picked(Event, source="load.bad-one"):
    number: int
    kind: Kind


class Apple(Entity, pk="apple#{number}"):
    number: str
    times: int = 0


apples = Service(
    "apples", policy=Policy(attempts=ATTEMPTS, backoff=Backoff(base=timedelta(milliseconds=50)))
)


@apples.on(Picked)
async def store(event: Picked, tx: Transaction) -> None:
    apple = await tx.get(Apple, str(event.number)) or Apple(number=str(event.number))
    tx.put(apple.model_copy(update={"times": apple.times + 1}))
    if event.kind == "poison":
        raise PoisonMessage(f"apple {event.number} is rotten")
    if event.kind == "failing":
        raise RuntimeError(f"apple {event.number} falls")


@dataclass(frozen=True, slots=True)
class Sent:
    """One message, and what is to become of it: the receive counts of its deliveries, and how the
    reason of its dead letter begins."""

    number: int
    kind: Kind
    entry: QueueEntry

    @property
    def receives(self) -> list[int]:
        return list(range(1, ATTEMPTS + 1)) if self.kind == "failing" else [1]

    @property
    def reason(self) -> str | None:
        match self.kind:
            case "good":
                return None
            case "no json":
                return "The body is not JSON"
            case "poison":
                return f"apple {self.number} is rotten"
            case "failing":
                return f"Gave up after {ATTEMPTS} receives: RuntimeError: apple {self.number} falls"


def picked(messages: int, seed: int) -> Iterator[Sent]:
    """As many messages, with a bad one somewhere in every ten of them, of each kind in turn."""
    random = Random(seed)
    for first in range(0, messages, BATCH):
        bad = first + random.randrange(BATCH)
        for number in range(first, min(first + BATCH, messages)):
            kind = BAD[first // BATCH % len(BAD)] if number == bad else "good"
            yield Sent(number, kind, _entry(number, kind))


def _entry(number: int, kind: Kind) -> QueueEntry:
    if kind == "no json":
        return QueueEntry(f"apple {number}, in words")
    return entry(Picked(number=number, kind=kind), f"apple-{number}")
