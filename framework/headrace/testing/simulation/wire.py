"""The network between a process and AWS: it takes time, and it fails.

A call is a request that arrives, or does not; has its effect in the world, where nobody can stop
it any more; and an answer that comes back, or does not. Whoever made the call may be dead by then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from random import Random
from typing import Final, TypeAlias, TypeVar

from headrace.errors import CloudError, Throttled, Unreachable
from headrace.ports import Delivery, ItemKey
from headrace.testing.simulation.chance import Chance
from headrace.testing.simulation.loop import Owner, SimulatedLoop
from headrace.testing.simulation.trace import Kind, Trace

T = TypeVar("T")

Subject: TypeAlias = Callable[[], tuple[str, tuple[str, ...]]]
"""What a call is about, for the trace: some words, and the ids of events."""


def nothing_more() -> tuple[str, tuple[str, ...]]:
    """The subject of a call whose name says enough."""
    return "", ()


CLIENT_TIMEOUT: Final = 5.0
"""Seconds after which a caller that hears nothing gives up."""

ENOUGH: Final = 5
"""Receives of a message after which what handles it is spared. A queue gives a message up after ten
of them: that many in a row are an outage of hours, and no fault of the service under test."""

_OF_INTEREST: Final = 0.1
_RESEND: Final = 0.5
"""Seconds after which the SDK sends a call again that had no answer."""
_CONTENDED: Final = 0.2
"""Seconds around a transaction in which another writer of its items meets it."""
_LONGEST_PAUSE: Final = 60.0
_LATEST: Final = 20.0
"""Seconds by which a request can come too late."""


class Network:
    """What all wires share: which services of AWS do not answer, and what is still to arrive."""

    def __init__(self) -> None:
        self.late = 0
        """Requests that take effect after their callers have given up."""
        self.called: dict[str, None] = {}
        """The services that were called so far."""
        self._down_until: dict[str, float] = {}
        self._written_at: dict[ItemKey, float] = {}

    def written(self, keys: Iterable[ItemKey], now: float) -> None:
        """A transaction is at work on these items."""
        self._written_at.update(dict.fromkeys(keys, now))

    def is_contended(self, key: ItemKey, now: float) -> bool:
        """Whether a transaction has been at work on the item just now."""
        return now - self._written_at.get(key, -_CONTENDED) < _CONTENDED

    def take_down(self, service: str, until: float) -> None:
        self._down_until[service] = until

    def is_down(self, service: str, now: float) -> bool:
        return self._down_until.get(service, 0.0) > now


class Wire:
    """The calls of one process."""

    def __init__(
        self,
        loop: SimulatedLoop,
        owner: Owner,
        chance: Chance,
        network: Network,
        trace: Trace,
        latency: Random,
    ) -> None:
        self.loop = loop
        self.owner = owner
        self.chance = chance
        self.trace = trace
        self.has_polled = False
        """Whether this process has begun to receive messages."""
        self.network = network
        self._latency = latency

    async def call(
        self,
        service: str,
        operation: str,
        effect: Callable[[], T],
        subject: Subject = nothing_more,
    ) -> T:
        """Have `effect` happen in the world and return what it does; raises what it raises,
        `Throttled` before it, and `Unreachable` with or without it."""
        future: asyncio.Future[T] = self.loop.create_future()
        there = self._seconds()
        self.network.called[service] = None
        if self.network.is_down(service, self.loop.time()):
            self._answer(CLIENT_TIMEOUT, future, error=_unreachable(operation, "is down"))
        elif self._is_of_no_interest():
            self.loop.call_as(self.loop.world, there, self._arrive, effect, future, False)
        elif self.owner.step():
            self._perhaps_pause(there)
            if not self._goes_wrong(operation, effect, future, there, subject):
                self.loop.call_as(self.loop.world, there, self._arrive, effect, future)
        return await future

    def _is_of_no_interest(self) -> bool:
        """Most of the calls of a process that has nothing in hand: it looks for work, hundreds of
        times, and nothing depends on it. And those of one that is spared."""
        if self.owner.spared:
            return True
        return self.owner.at_rest and self._latency.random() > _OF_INTEREST

    def fault(self, text: str) -> None:
        """Put a fault into the trace, as this process sees it."""
        self.trace.note(self.owner.name, Kind.FAULT, text)

    def call_fault(self, operation: str, subject: Subject, what: str) -> None:
        """Put a fault of a call into the trace, and what the call was about."""
        if self.trace.on:
            words, about = subject()
            whole = f"{operation} ({words})" if words else operation
            self.trace.note(self.owner.name, Kind.FAULT, f"{whole} {what}", about)

    def note(self, kind: Kind, text: str, about: tuple[str, ...] = ()) -> None:
        """Put into the trace what this process does."""
        self.trace.note(self.owner.name, kind, text, about)

    def _goes_wrong(
        self,
        operation: str,
        effect: Callable[[], T],
        future: asyncio.Future[T],
        there: float,
        subject: Subject,
    ) -> bool:
        """Whether this call fails; if so, that is on its way."""
        loop, chance = self.loop, self.chance
        if chance.strikes("throttle") is not None:
            self.call_fault(operation, subject, "is throttled")
            error = Throttled(f"{operation} was refused for now.", operation=operation)
            self._answer(there + self._seconds(), future, error=error)
        elif chance.strikes("timeout") is not None:
            self.call_fault(operation, subject, "does not arrive")
            self._answer(CLIENT_TIMEOUT, future, error=_unreachable(operation, "timed out"))
        elif chance.strikes("lost_answer") is not None:
            self.call_fault(operation, subject, "takes effect, and its answer is lost")
            loop.call_as(loop.world, there, _happen, effect)
            self._answer(CLIENT_TIMEOUT, future, error=_unreachable(operation, "timed out"))
        elif chance.strikes("resend") is not None:
            self.call_fault(operation, subject, "takes effect, and is sent again by the client")
            loop.call_as(loop.world, there, _happen, effect)
            loop.call_as(loop.world, there + _RESEND, self._arrive, effect, future)
        elif (late := chance.strikes("late")) is not None:
            delay = CLIENT_TIMEOUT + late * _LATEST
            what = f"times out, and will take effect {delay:.1f} s late"
            self.call_fault(operation, subject, what)
            self.network.late += 1
            loop.call_as(loop.world, delay, self._happen_late, operation, subject, effect)
            self._answer(CLIENT_TIMEOUT, future, error=_unreachable(operation, "timed out"))
        else:
            return False
        return True

    def _happen_late(self, operation: str, subject: Subject, effect: Callable[[], object]) -> None:
        self.network.late -= 1
        self.call_fault(operation, subject, "arrives late")
        _happen(effect)

    def _perhaps_pause(self, there: float) -> None:
        hard = self.chance.strikes("pause")
        if hard is None:
            return
        # Not before the request is on its way: what a pause is bad for is what comes after it.
        seconds = hard * hard * _LONGEST_PAUSE
        self.owner.paused_until = self.loop.time() + there + seconds
        self.fault(f"the process stands still for {seconds:.1f} s")

    def _arrive(
        self, effect: Callable[[], T], future: asyncio.Future[T], counts: bool = True
    ) -> None:
        try:
            result = effect()
        except Exception as error:  # AWS's refusals, and whatever the world outside raises
            self._answer(self._seconds(), future, error=error, counts=counts)
        else:
            self._answer(self._seconds(), future, result, counts=counts)

    def _answer(
        self,
        delay: float,
        future: asyncio.Future[T],
        result: T | None = None,
        error: Exception | None = None,
        *,
        counts: bool = True,
    ) -> None:
        self.loop.call_as(self.owner, delay, _settle, future, result, error, counts=counts)

    def answer_poll(self, future: asyncio.Future[list[Delivery]], found: list[Delivery]) -> None:
        """Let the answer to a long poll travel back, which the world gives in its own time."""
        spared = any(delivery.receive_count > ENOUGH for delivery in found)
        if found and not spared and self.chance.strikes("lost_answer") is not None:
            self.call_fault("ReceiveMessage", nothing_more, "gives messages, and they are lost")
            error = _unreachable("ReceiveMessage", "timed out")
            self._answer(CLIENT_TIMEOUT, future, error=error)
        else:
            self._answer(self._seconds(), future, found, counts=not spared)

    def notices(self) -> bool:
        """Whether AWS notices that this process is gone."""
        return self._latency.random() < 0.5

    def _seconds(self) -> float:
        """A way through the network: mostly some milliseconds, now and then much more."""
        draw = self._latency.random()
        return 0.001 + 0.01 * draw if draw < _USUAL else 0.4 * (draw - _USUAL) / (1 - _USUAL)


_USUAL: Final = 0.97


def _happen(effect: Callable[[], object]) -> None:
    try:
        effect()
    except CloudError:
        # AWS refused, and nobody is there any more to hear of it.
        return


def _settle(future: asyncio.Future[T], result: T, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def _unreachable(operation: str, why: str) -> Unreachable:
    return Unreachable(
        f"{operation} {why}: it may or may not have had its effect.", operation=operation
    )
