"""A carnival as a saga: a permit, then drummers and maybe a float side by side, then the parade
begins, and nobody can call it off any more; at last the street is swept."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from headrace import Command, Event
from headrace.saga import Abort, Retries, Saga, on, step

MINUTE: Final = timedelta(minutes=1)


class CarnivalCalled(Event, source="carnival.town"):
    town: str
    guests: int


class AskPermit(Command, owner="mayor"):
    town: str


class PermitGiven(Event, source="carnival.mayor"):
    town: str


class PermitDenied(Event, source="carnival.mayor"):
    town: str


class MayorAsleep(Event, source="carnival.mayor"):
    town: str


class ReturnPermit(Command, owner="mayor"):
    town: str


class PermitReturned(Event, source="carnival.mayor"):
    town: str


class HireDrummers(Command, owner="drummers"):
    town: str


class DrummersHired(Event, source="carnival.drummers"):
    town: str


class DrummersIll(Event, source="carnival.drummers"):
    town: str


class SendDrummersHome(Command, owner="drummers"):
    town: str


class DrummersHome(Event, source="carnival.drummers"):
    town: str


class DrummersStay(Event, source="carnival.drummers"):
    town: str


class BuildFloat(Command, owner="joiner"):
    town: str


class FloatBuilt(Event, source="carnival.joiner"):
    town: str


class FloatBroken(Event, source="carnival.joiner"):
    town: str


class TakeFloatApart(Command, owner="joiner"):
    town: str


class StartParade(Command, owner="marshal"):
    town: str


class ParadeStarted(Event, source="carnival.marshal"):
    town: str


class ParadeForbidden(Event, source="carnival.marshal"):
    town: str


class SweepStreet(Command, owner="sweeper"):
    town: str


class StreetSwept(Event, source="carnival.sweeper"):
    town: str


class CarnivalOver(Event, source="carnival.town"):
    town: str


class CarnivalCancelled(Event, source="carnival.town"):
    town: str


class Town(Saga):
    """What carnivals have in common."""

    town: str
    guests: int

    @classmethod
    def begin(cls, event: CarnivalCalled) -> Town:
        return cls(town=event.town, guests=event.guests)


class Carnival(Town, starts_on=CarnivalCalled, key="town", deadline=timedelta(hours=4)):
    """All that a saga can have."""

    @step(
        done=PermitGiven,
        failed=PermitDenied,
        again=MayorAsleep,
        timeout=MINUTE,
        retries=Retries(attempts=3),
    )
    def permit(self) -> AskPermit:
        return AskPermit(town=self.town)

    @permit.undo(done=PermitReturned)
    def give_back(self) -> ReturnPermit:
        return ReturnPermit(town=self.town)

    @step(done=DrummersHired, failed=DrummersIll, timeout=MINUTE, after=permit)
    def drummers(self) -> HireDrummers:
        return HireDrummers(town=self.town)

    @drummers.undo(done=DrummersHome, failed=DrummersStay)
    def send_home(self) -> SendDrummersHome:
        return SendDrummersHome(town=self.town)

    @step(done=FloatBuilt, failed=FloatBroken, timeout=MINUTE, after=permit)
    def wagon(self) -> BuildFloat | None:
        return BuildFloat(town=self.town) if self.guests > 500 else None

    @wagon.undo()
    def take_apart(self) -> TakeFloatApart:
        return TakeFloatApart(town=self.town)

    @step(
        done=ParadeStarted,
        failed=ParadeForbidden,
        timeout=MINUTE,
        pivot=True,
        after=(drummers, wagon),
    )
    def parade(self) -> StartParade:
        return StartParade(town=self.town)

    @step(done=StreetSwept, timeout=MINUTE)
    def sweep(self) -> SweepStreet:
        return SweepStreet(town=self.town)

    @step()
    def tell(self) -> CarnivalOver:
        return CarnivalOver(town=self.town)

    @on(CarnivalCancelled)
    def cancelled(self, event: CarnivalCancelled) -> Abort:
        return Abort("The town does not want it.")
