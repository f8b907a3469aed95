"""What a handler can be told to do, by the `do` of its event."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, NoReturn, TypeAlias

from headrace import Delivery, Metadata, PoisonMessage, RetryLater, Transaction
from tests.parity.contracts import Account, Balanced, Book, Booking, Remind, Unannounced
from tests.parity.journal import JOURNAL, Entry
from tests.parity.stage import STAGE

Effect: TypeAlias = Balanced | Remind | Unannounced


class Forged(Exception):
    """The service's policy says that no further attempt can help."""


class Over(Exception):
    """A handler that was waiting for nothing is let go, long after its case."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One run of one handler. Whatever it is told to do, it has begun to write and to publish."""

    handler: str
    event: Booking | Book
    tx: Transaction
    metadata: Metadata
    delivery: Delivery

    @property
    def id(self) -> str:
        return self.metadata.id

    def begin(self, do: Sequence[str]) -> str:
        """Note that it runs; returns what it is to do at this receive."""
        JOURNAL.note(Entry("ran", self.id, self.handler))
        return do[min(self.delivery.receive_count, len(do)) - 1]

    def hang(self) -> str:
        """Note that it does not end; returns the name of the bell at which it does."""
        JOURNAL.note(Entry("hangs", self.id, self.handler))
        return f"{self.id} is over"

    def leave_traces(self) -> None:
        self.tx.put(Account(number=f"{self.event.account}-trace"))
        self.tx.publish(Balanced(account=self.event.account, balance=-1))


# --- what an `async def` can do ----------------------------------------------------------------


async def book(scene: Scene) -> Sequence[Effect]:
    """Read, write and publish."""
    event = scene.event
    account = await scene.tx.get(Account, event.account) or Account(number=event.account)
    entries = [*account.entries, event.name]
    scene.tx.put(Account(number=event.account, entries=entries))
    return [Balanced(account=event.account, balance=len(entries))]


async def book_quietly(scene: Scene) -> Sequence[Effect]:
    await book(scene)
    return []


async def book_together(scene: Scene) -> Sequence[Effect]:
    """Nobody goes on before two have read the account."""
    await scene.tx.get(Account, scene.event.account)
    await STAGE.meet(f"{scene.event.account} meets", 2)
    return await book(scene)


async def book_when_refused(scene: Scene) -> Sequence[Effect]:
    """Not before another delivery has found the lease held."""
    await STAGE.heard(f"{scene.id} is held")
    return await book(scene)


async def announce(scene: Scene) -> Sequence[Effect]:
    return [Balanced(account=scene.event.account, balance=0)]


async def announce_twice(scene: Scene) -> Sequence[Effect]:
    return [*await book(scene), Balanced(account=scene.event.account, balance=0)]


async def remind(scene: Scene) -> Sequence[Effect]:
    await book(scene)
    return [Remind(account=scene.event.account)]


async def rest(scene: Scene) -> Sequence[Effect]:
    return []


async def fail(scene: Scene) -> NoReturn:
    scene.leave_traces()
    raise RuntimeError("no cover")


async def fail_unspeakably(scene: Scene) -> NoReturn:
    class Unspeakable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("it cannot be said")

    raise Unspeakable


async def retry_in_two_hours(scene: Scene) -> NoReturn:
    scene.leave_traces()
    raise RetryLater("not due", delay=timedelta(hours=2))


async def retry_in_two_days(scene: Scene) -> NoReturn:
    raise RetryLater("not due", delay=timedelta(days=2))


async def retry_at_once(scene: Scene) -> NoReturn:
    raise RetryLater("not due", delay=timedelta(0))


async def retry(scene: Scene) -> NoReturn:
    raise RetryLater("not due")


async def poison(scene: Scene) -> NoReturn:
    scene.leave_traces()
    raise PoisonMessage("never to be booked")


async def forge(scene: Scene) -> NoReturn:
    raise Forged("a forged signature")


async def exit(scene: Scene) -> NoReturn:
    scene.leave_traces()
    sys.exit(3)


async def close(scene: Scene) -> NoReturn:
    """As a coroutine that is closed does, only that nobody has closed it."""
    raise GeneratorExit


async def cancel(scene: Scene) -> NoReturn:
    raise asyncio.CancelledError


async def fail_in_a_group(scene: Scene) -> NoReturn:
    raise ExceptionGroup("two at once", [RuntimeError("no cover"), PoisonMessage("never")])


async def publish_unannounced(scene: Scene) -> Sequence[Effect]:
    scene.leave_traces()
    scene.tx.publish(Unannounced(account=scene.event.account))
    return []


async def write_too_much(scene: Scene) -> Sequence[Effect]:
    scene.tx.put(Account(number=scene.event.account, entries=["x" * 410_000]))
    return []


async def write_too_many(scene: Scene) -> Sequence[Effect]:
    for number in range(100):
        scene.tx.put(Account(number=f"{scene.event.account}-{number}"))
    return []


async def hang(scene: Scene) -> NoReturn:
    scene.leave_traces()
    await STAGE.heard(scene.hang())
    raise Over


async def hang_on(scene: Scene) -> NoReturn:
    """Whoever cancels it is not listened to."""
    over = asyncio.ensure_future(STAGE.heard(scene.hang()))
    while not over.done():
        try:
            await asyncio.shield(over)
        except asyncio.CancelledError:
            continue
    raise Over


Act: TypeAlias = Callable[[Scene], Awaitable[Sequence[Effect]]]

ACTS: Final[Mapping[str, Act]] = {
    act.__name__: act
    for act in (
        *(book, book_quietly, book_together, book_when_refused, announce, announce_twice, remind),
        *(rest, fail, fail_unspeakably, fail_in_a_group, retry, retry_at_once, retry_in_two_hours),
        *(retry_in_two_days, poison, forge, exit, close, cancel, publish_unannounced),
        *(write_too_much, write_too_many, hang, hang_on),
    )
}


async def play(scene: Scene, do: Sequence[str]) -> list[Any]:
    return list(await ACTS[scene.begin(do)](scene))


# --- what a plain `def` can do -----------------------------------------------------------------


def play_plainly(scene: Scene) -> list[Balanced]:
    """A plain function cannot read, so it books into an account that is not there yet."""
    act = scene.begin(scene.event.do)
    account = scene.event.account
    scene.tx.put(Account(number=account, entries=[scene.event.name]))
    match act:
        case "fail":
            raise RuntimeError("no cover")
        case "poison":
            raise PoisonMessage("never to be booked")
        case "exit":
            sys.exit(3)
        case "hang":
            STAGE.heard_plainly(scene.hang())
            raise Over
        case _:
            return [Balanced(account=account, balance=1)]
