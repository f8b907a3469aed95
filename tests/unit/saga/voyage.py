"""A voyage as a saga: a berth and a guide side by side, then the ship sails, and a log is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from pydantic import Field

from headrace import Command, Event, Service
from headrace.events import Message
from headrace.saga import Abort, Retries, Saga, TimedOut, on, step
from headrace.saga.definition import Definition, definition_of
from headrace.saga.machine import Action, Transition, answered, begin, intervened, woken
from headrace.saga.progress import Progress, StepStatus

MINUTE = timedelta(minutes=1)
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


class VoyagePlanned(Event, source="saga.captain"):
    voyage: str
    with_guide: bool = True


class BookBerth(Command, owner="harbour"):
    voyage: str


class BerthBooked(Event, source="saga.harbour"):
    voyage: str
    pier: int = 4


class BerthRefused(Event, source="saga.harbour"):
    voyage: str


class HarbourBusy(Event, source="saga.harbour"):
    voyage: str


class FreeBerth(Command, owner="harbour"):
    voyage: str
    pier: int | None


class BerthFreed(Event, source="saga.harbour"):
    voyage: str


class BerthStays(Event, source="saga.harbour"):
    voyage: str


class HireGuide(Command, owner="guides"):
    voyage: str


class GuideHired(Event, source="saga.guides"):
    voyage: str


class GuideIll(Event, source="saga.guides"):
    voyage: str


class DismissGuide(Command, owner="guides"):
    voyage: str


class GuideDismissed(Event, source="saga.guides"):
    voyage: str


class SetSail(Command, owner="crew"):
    voyage: str


class ShipSailed(Event, source="saga.crew"):
    voyage: str


class SailTorn(Event, source="saga.crew"):
    voyage: str


class OpenLog(Command, owner="purser"):
    voyage: str


class LogOpened(Event, source="saga.purser"):
    voyage: str


class LogMissing(Event, source="saga.purser"):
    voyage: str


class VoyageAnnounced(Event, source="saga.captain"):
    voyage: str


class StormSeen(Event, source="saga.lookout"):
    voyage: str
    strength: int = 12


captain = Service("captain", bus="saga")


class Voyage(
    Saga,
    service=captain,
    starts_on=VoyagePlanned,
    key="voyage",
    deadline=timedelta(hours=1),
):
    """Plan, book and hire, sail, and keep a log."""

    voyage: str
    with_guide: bool
    pier: int | None = None
    sorrows: list[str] = Field(default_factory=list)

    @classmethod
    def begin(cls, event: VoyagePlanned) -> Voyage:
        return cls(voyage=event.voyage, with_guide=event.with_guide)

    @step()
    def plan(self) -> None:
        """It is planned when it begins."""

    @step(
        done=BerthBooked,
        failed=BerthRefused,
        again=HarbourBusy,
        timeout=MINUTE,
        retries=Retries(attempts=2, base=timedelta(seconds=10)),
        after=plan,
    )
    def berth(self) -> BookBerth:
        return BookBerth(voyage=self.voyage)

    @berth.on(BerthBooked)
    def at_pier(self, event: BerthBooked) -> None:
        self.pier = event.pier

    @berth.on(TimedOut)
    def no_word(self, event: TimedOut) -> None:
        self.sorrows = [*self.sorrows, "no word from the harbour"]

    @berth.undo(done=BerthFreed, failed=BerthStays, retries=Retries(attempts=2))
    def free_berth(self) -> FreeBerth:
        return FreeBerth(voyage=self.voyage, pier=self.pier)

    @step(done=GuideHired, failed=GuideIll, timeout=2 * MINUTE, after=plan)
    def guide(self) -> HireGuide | None:
        return HireGuide(voyage=self.voyage) if self.with_guide else None

    @guide.undo(done=GuideDismissed)
    def dismiss(self) -> DismissGuide:
        return DismissGuide(voyage=self.voyage)

    @step(
        done=ShipSailed,
        failed=SailTorn,
        timeout=MINUTE,
        pivot=True,
        nothing_to_undo=True,
        retries=Retries(attempts=1),
        after=(berth, guide),
    )
    def sail(self) -> SetSail:
        return SetSail(voyage=self.voyage)

    @step(done=LogOpened, failed=LogMissing, timeout=MINUTE, retries=Retries(attempts=2))
    def log(self) -> OpenLog:
        return OpenLog(voyage=self.voyage)

    @step()
    def announce(self) -> VoyageAnnounced:
        return VoyageAnnounced(voyage=self.voyage)

    @on(StormSeen)
    def storm(self, event: StormSeen) -> Abort | None:
        self.sorrows = [*self.sorrows, "a storm"]
        return Abort("There is a storm.") if event.strength > 9 else None


DEFINITION: Definition = definition_of(Voyage)


@dataclass(slots=True)
class Log:
    """One voyage through the transitions, and all that it has sent."""

    now: datetime = NOON
    progress: Progress | None = None
    sent: list[Message] = field(default_factory=list)
    last: Transition | None = None

    @classmethod
    def begun(cls, *, with_guide: bool = False) -> Log:
        log = cls()
        planned = VoyagePlanned(voyage="V1", with_guide=with_guide)
        return log.take(begin(DEFINITION, planned, log.now))

    def hears(self, *messages: type[Message]) -> Log:
        for cls in messages:
            self.take(answered(DEFINITION, self.at, cls.model_validate({"voyage": "V1"}), self.now))
        return self

    def wakes(self) -> Log:
        """When its timer is due, and by it."""
        timer = self.at.timer
        assert timer is not None, "it waits for no timer"
        self.now = timer.at
        return self.take(woken(DEFINITION, self.at, timer.turn, self.now))

    def exhausted(self, times: int = 30) -> Log:
        """Wake as long as a timer is set, but not for ever."""
        for _ in range(times):
            if self.at.timer is None:
                return self
            self.wakes()
        raise AssertionError("it wakes for ever")

    def told(self, action: Action, step: str | None = None) -> Log:
        return self.take(intervened(DEFINITION, self.at, action, "ahab", "", self.now, step))

    def take(self, transition: Transition) -> Log:
        self.last = transition
        self.progress = transition.progress
        self.sent += [message for _, message in transition.sent]
        return self

    @property
    def at(self) -> Progress:
        assert self.progress is not None
        return self.progress

    @property
    def changed(self) -> Sequence[str]:
        assert self.last is not None
        return self.last.changes

    @property
    def names(self) -> list[str]:
        """What was sent so far, by name."""
        return [type(message).__name__ for message in self.sent]

    def status(self, name: str) -> StepStatus:
        return self.at.step(name).status

    def state(self) -> Voyage:
        assert isinstance(self.at.state, Voyage)
        return self.at.state
