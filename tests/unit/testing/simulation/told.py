"""Runs to tell: made by hand, and one of a service with a mistake."""

from __future__ import annotations

from dataclasses import replace

from headrace import Command, Event, Service, Transaction
from headrace.testing.simulation.chance import Fault
from headrace.testing.simulation.faults import Faults
from headrace.testing.simulation.plan import Plan, Run, Setting, Wrong
from headrace.testing.simulation.run import run
from headrace.testing.simulation.timeline import as_text
from headrace.testing.simulation.trace import Entry, Kind
from headrace.testing.simulation.world import World

ORDERED = "11111111-0000-4000-8000-000000000001"
COOKED = "22222222-0000-4000-8000-000000000002"
OTHER = "33333333-0000-4000-8000-000000000003"


class OrderDish(Command, owner="kitchen"):
    dish: str


class DishCooked(Event, source="tavern.kitchen"):
    dish: str


kitchen = Service("kitchen", bus="tavern", emits=[DishCooked])
waiter = Service("waiter", bus="tavern")


@kitchen.on(OrderDish)
async def cook(command: OrderDish, tx: Transaction) -> DishCooked:
    return DishCooked(dish=command.dish)


@waiter.on(DishCooked)
async def serve(event: DishCooked, tx: Transaction) -> None:
    return None


async def a_dish_is_ordered(aws: World) -> None:
    await aws.send(OrderDish(dish="soup"))


def nothing_is_cooked(aws: World) -> None:
    assert aws.published(DishCooked) == [], "There is soup."


def a_real_run() -> Run:
    """A dish is ordered and cooked, and an invariant says that it must not be."""
    setting = Setting(
        (kitchen, waiter),
        a_dish_is_ordered,
        (nothing_is_cooked,),
        faults=Faults.only(delay=0.5),
    )
    return run(setting, Plan(7), traced=True)


def entry(at: float, lane: str, kind: Kind, text: str, *about: str) -> Entry:
    return Entry(at, lane, kind, text, about)


def sent(at: float = 1.0, *about: str, type_: str = "OrderDish") -> Entry:
    return entry(at, "scenario", Kind.SENT, f"sends {type_}", *(about or (ORDERED,)))


def received(at: float, *about: str, type_: str = "OrderDish", lane: str = "kitchen/1") -> Entry:
    return entry(at, lane, Kind.RECEIVED, f"receives {type_} from kitchen", *(about or (ORDERED,)))


def fault(at: float, text: str, lane: str = "kitchen/1") -> Entry:
    return entry(at, lane, Kind.FAULT, text)


def starts(lane: str, at: float = 0.0) -> Entry:
    return entry(at, lane, Kind.PROCESS, "starts")


def made(*entries: Entry, wrong: Wrong | None = None, struck: tuple[Fault, ...] = ()) -> Run:
    """A run of which these are the entries."""
    return Run(Plan(7), {}, wrong, struck, sendings=2, seconds=75.0, entries=entries)


def without_some(run: Run) -> Run:
    """The same, of which one sending does not happen."""
    return replace(run, plan=replace(run.plan, dropped=frozenset({1})))


def broken(sentence: str = "There is soup.", name: str = "no soup") -> Wrong:
    """What an assertion in this file has found."""
    try:
        raise AssertionError(sentence)
    except AssertionError as error:
        return Wrong(name, sentence, error)


def body(*entries: Entry, width: int = 100) -> list[str]:
    """The lines between header and verdict, with single spaces."""
    _, lines, _ = as_text(made(*entries), width=width).split("\n\n")
    return [" ".join(line.split()) for line in lines.splitlines()]
