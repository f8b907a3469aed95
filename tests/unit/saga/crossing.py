"""Three deployments of one saga, which crosses a river: by a ferry, then with a ticket for it."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from headrace import Command, Event, Service
from headrace.saga import Saga, step
from headrace.saga.definition import definition_of
from headrace.saga.handling import register

SAGA: Final = "crossing"


class CartArrived(Event, source="saga.bank"):
    cart: str


class SellTicket(Command, owner="ferry"):
    cart: str


class TicketSold(Event, source="saga.ferry"):
    cart: str


class TakeOver(Command, owner="ferry"):
    cart: str


class CartTakenOver(Event, source="saga.ferry"):
    cart: str


class FerrySank(Event, source="saga.ferry"):
    cart: str


class CartOnItsWay(Event, source="saga.bank"):
    cart: str
    paid: bool


class Crossing(Saga, starts_on=CartArrived, key="cart", name=SAGA):
    """As it was at first: nobody pays."""

    cart: str

    @classmethod
    def begin(cls, event: CartArrived) -> Crossing:
        return cls(cart=event.cart)

    @step(done=CartTakenOver, failed=FerrySank, nothing_to_undo=True)
    def take_over(self) -> TakeOver:
        return TakeOver(cart=self.cart)

    @step()
    def go_on(self) -> CartOnItsWay:
        return CartOnItsWay(cart=self.cart, paid=False)


class PaidCrossing(Saga, starts_on=CartArrived, key="cart", name=SAGA, version=2):
    """Who crosses pays first."""

    cart: str
    price: int = 3

    @classmethod
    def begin(cls, event: CartArrived) -> PaidCrossing:
        return cls(cart=event.cart)

    @step(done=TicketSold, failed=FerrySank, nothing_to_undo=True)
    def sell_ticket(self) -> SellTicket:
        return SellTicket(cart=self.cart)

    @step(done=CartTakenOver, timeout=timedelta(hours=1), nothing_to_undo=True)
    def take_over(self) -> TakeOver:
        return TakeOver(cart=self.cart)

    @step()
    def go_on(self) -> CartOnItsWay:
        return CartOnItsWay(cart=self.cart, paid=self.price > 0)


def bank(*versions: type[Saga]) -> Service:
    """The service as it is deployed with these versions."""
    service = Service("bank", bus="river")
    for version in versions:
        register(service, definition_of(version))
    return service


first = bank(Crossing)
both = bank(Crossing, PaidCrossing)
second = bank(PaidCrossing)
