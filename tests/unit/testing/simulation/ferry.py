"""A ferry that takes cars aboard, and a toll house that counts them: small, and right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pytest

from headrace import Command, Entity, Event, Service, Transaction
from headrace.testing import Faults, Violation, World, simulate


class BoardCar(Command, owner="ferry"):
    plate: str


class CarBoarded(Event, source="harbour.ferry"):
    plate: str


class Deck(Entity, pk="deck#{name}"):
    name: str = "main"
    cars: int = 0


class Purse(Entity, pk="purse#{name}"):
    name: str = "main"
    coins: int = 0


ferry = Service("ferry", bus="harbour")
toll = Service("toll", bus="harbour")


@ferry.on(BoardCar)
async def board(command: BoardCar, tx: Transaction) -> CarBoarded:
    deck = await tx.get(Deck, "main") or Deck()
    deck.cars += 1
    tx.put(deck)
    return CarBoarded(plate=command.plate)


@toll.on(CarBoarded)
async def collect(event: CarBoarded, tx: Transaction) -> None:
    purse = await tx.get(Purse, "main") or Purse()
    purse.coins += 1
    tx.put(purse)


CARS: Final = [BoardCar(plate="A-1"), BoardCar(plate="B-2"), BoardCar(plate="C-3")]


def everybody_is_aboard(aws: World) -> None:
    assert aws.get(Deck, "main", service=ferry).cars == len(CARS)


def violation_of(
    services: Sequence[Any],
    scenario: Any,
    invariants: Sequence[Any] = (),
    *,
    faults: Faults | None = None,
    seeds: Any = 1,
    **options: Any,
) -> Violation:
    """What a simulation finds, by default where nothing goes wrong around the services."""
    options = {"workers": 1, "pages": None, **options}
    with pytest.raises(Violation) as caught:
        simulate(
            services, scenario, invariants, seeds=seeds, faults=faults or Faults.none(), **options
        )
    return caught.value


def broken(violation: Violation) -> str:
    """The name of what a violation says is broken."""
    assert violation.run.wrong is not None
    assert str(violation).startswith(f"{violation.run.wrong.name}: ")
    return violation.run.wrong.name
