"""Carrying messages until nothing is left to carry, in a time that moves where all would wait."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from headrace.coalesce import without_linger
from headrace.connection import Connection
from headrace.pipeline import Pipeline
from headrace.relay import INTERVAL, Relay, is_relayed
from headrace.service import Service
from headrace.testing.harness.intake import Intake, counted
from headrace.testing.letters import Letter
from headrace.testing.memory import ManualClock, MemoryCloud

LONGEST: Final = timedelta(hours=1)
"""How far the clock is moved for retries that nobody has said anything about. Those of a policy
take minutes."""
ROUNDS: Final = 500
"""Batches of each queue that may follow on each other while no time passes. No chain of events is
so long, unless it is a circle."""
SWEEPS: Final = 5
"""Looks of the relays, one after the other, that sent nothing although something was left."""


class Unsettled(AssertionError):
    """The services did not come to rest as the test says that they do."""


class Pump:
    """Everything that moves on an account under test."""

    def __init__(
        self,
        cloud: MemoryCloud[ManualClock],
        pipelines: Sequence[Pipeline],
        relays: Mapping[Service, Relay],
    ) -> None:
        self._cloud = cloud
        self._relays = relays
        self.intakes = [Intake(cloud, p, queue) for p in pipelines for queue in p.service.queues]
        self.connections: set[Connection] = set()
        self._known: dict[str, int] = {}
        self._fruitless = 0

    # --- running ---

    async def settle(self) -> None:
        """Handle all there is and all that comes of it, moving the clock to what is due later.
        Raises `Unsettled` if that is more than `LONGEST` ahead, or never ends."""
        await self._run_until(self._cloud.clock.now() + LONGEST, stops=False)

    async def elapse(self, time: timedelta) -> None:
        """Let this time pass, and handle everything when it is due, also what is scheduled."""
        clock = self._cloud.clock
        end = clock.now() + time
        await self._run_until(end, stops=True)
        clock.advance(max(end - clock.now(), timedelta(0)))
        await self._run_until(end, stops=True)

    async def _run_until(self, end: datetime, *, stops: bool) -> None:
        rounds = 0
        while rounds < ROUNDS:
            if await self._round():
                rounds += 1
            elif await self._time_passes(end, stops=stops):
                rounds = 0
            else:
                return
        raise self._circling()

    async def _round(self) -> bool:
        """One batch of every queue, one after the other; whether there was any."""
        with without_linger():
            handled = [await intake.run() for intake in self.intakes]
        return any(handled)

    async def _time_passes(self, end: datetime, *, stops: bool) -> bool:
        """Move the clock to what is due next; `False` if nothing is, or, where it stops there, not
        by `end`."""
        clock = self._cloud.clock
        relay_at = clock.now() + INTERVAL if await self._owing() else None
        due = self._first(relay_at, scheduled=stops)
        if due is None or (due > end and stops):
            return False
        if due > end:
            raise self._late()
        clock.advance(due - clock.now())
        if due == relay_at:
            await self._sweep(patient=stops)
        return True

    async def _owing(self) -> bool:
        """Whether something is committed and not out, as far as the tables know."""
        for connection in self.connections:
            await connection.flush()
        return any(map(self._records_of, self._relays))

    def _records_of(self, service: Service) -> int:
        items = self._cloud.store.items(service.table or "")
        return sum(is_relayed(item, service.name) for item in items)

    def _first(self, relay_at: datetime | None, *, scheduled: bool) -> datetime | None:
        queues, scheduler = self._cloud.queues, self._cloud.scheduler
        times: list[datetime | None] = [relay_at]
        times += [queues.next_due(intake.queue) for intake in self.intakes]
        times += [scheduler.next_due()] if scheduled else []
        return min((time for time in times if time is not None), default=None)

    async def _sweep(self, *, patient: bool) -> None:
        sent = [await relay.sweep() for relay in self._relays.values()]
        self._fruitless = 0 if patient or any(sent) else self._fruitless + 1
        if self._fruitless == SWEEPS:
            self._fruitless = 0
            raise self._blocked()

    # --- what did not go as it should ---

    def new_letters(self) -> list[Letter]:
        """The dead letters that were not there when this was asked the last time."""
        new: list[Letter] = []
        for intake in self.intakes:
            letters = intake.letters()
            new += letters[self._known.get(intake.queue, 0) :]
            self._known[intake.queue] = len(letters)
        return new

    async def refuse_unhandled(self) -> None:
        """Raises `Unsettled` if something can be received that nobody has received."""
        for intake in self.intakes:
            depth = await self._cloud.queues.depth(intake.queue)
            if depth.visible:
                error = Unsettled(f"The test is over, and {intake.left()} that nothing handled.")
                raise _noted(error, "Write `await aws.settled()` before what the test asserts.")

    def _late(self) -> Unsettled:
        return self._stuck(
            "An hour of retries has not settled everything",
            "If it is meant to wait for so long, write `await aws.elapsed(timedelta(…))`, which "
            "lets so much time pass and leaves alone what is due later.",
        )

    def _circling(self) -> Unsettled:
        return self._stuck(
            "There is no end to what the services do",
            f"This came after {ROUNDS} rounds in which no time passed: do two handlers set each "
            "other off?",
        )

    def _blocked(self) -> Unsettled:
        return self._stuck(
            "What is committed does not go out",
            f"The relay has tried {SWEEPS} times, and its log says why it failed.",
        )

    def _stuck(self, what: str, note: str) -> Unsettled:
        error = Unsettled(f"{what}: {self._left()}.")
        errors = (intake.error() for intake in self.intakes)
        error.__cause__ = next((error for error in errors if error is not None), None)
        return _noted(error, note)

    def _left(self) -> str:
        queues = [i.left() for i in self.intakes if not self._cloud.queues.is_empty(i.queue)]
        owing = {service.name: self._records_of(service) for service in self._relays}
        records = [
            f"the relay of {name!r} has {counted(count, 'record')} left to send"
            for name, count in owing.items()
            if count
        ]
        return "; ".join([*queues, *records])


def unexpected(letters: Sequence[Letter], expected: int) -> Unsettled:
    """What to raise for other than the expected number of new dead letters."""
    count = counted(len(letters), "new dead letter") if letters else "No new dead letter"
    listed = f": {'; '.join(map(str, letters))}" if letters else "."
    error = Unsettled(f"{count}, where the test expects {expected or 'none'}{listed}")
    error.__cause__ = next((letter.error for letter in letters if letter.error), None)
    if len(letters) <= expected:
        return error
    return _noted(
        error,
        f"If it is meant, write `await aws.settled(dead_letters={len(letters)})`; what is known of "
        "them is in `aws.dead_letters()`.",
    )


def _noted(error: Unsettled, note: str) -> Unsettled:
    error.add_note(note)
    return error
