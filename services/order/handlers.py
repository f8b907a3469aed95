"""What the order service does when something happens."""

from __future__ import annotations

from headrace import Transaction
from schemas.checkout import CheckoutCompleted
from schemas.order import (
    CancelOrder,
    ConfirmOrder,
    OrderCancelled,
    OrderConfirmed,
    OrderPlaced,
    PlaceOrder,
)
from services.order.model import Order, UnknownOrder
from services.order.service import order


@order.on(PlaceOrder, CheckoutCompleted)
async def place_order(
    request: PlaceOrder | CheckoutCompleted, tx: Transaction
) -> OrderPlaced | None:
    known = await tx.get(Order, request.order_id)
    if known is not None:
        known.refuse_other_content(request)
        return None
    placed = Order.of(request)
    tx.put(placed)
    return OrderPlaced(
        order_id=placed.order_id,
        customer=placed.customer,
        lines=placed.lines,
        total=placed.total,
        currency=placed.currency,
    )


@order.on(ConfirmOrder)
async def confirm_order(command: ConfirmOrder, tx: Transaction) -> OrderConfirmed | None:
    found = await _known(command, tx)
    if not found.confirm():
        # Said when it was asked first, and once only: customers are told of it.
        return None
    tx.put(found)
    return OrderConfirmed(
        order_id=found.order_id,
        customer=found.customer,
        lines=found.lines,
        total=found.total,
        currency=found.currency,
    )


@order.on(CancelOrder)
async def cancel_order(command: CancelOrder, tx: Transaction) -> OrderCancelled | None:
    found = await _known(command, tx)
    if not found.cancel(command.reason):
        return None
    tx.put(found)
    return OrderCancelled(
        order_id=found.order_id,
        customer=found.customer,
        total=found.total,
        currency=found.currency,
        reason=command.reason,
    )


async def _known(command: ConfirmOrder | CancelOrder, tx: Transaction) -> Order:
    found = await tx.get(Order, command.order_id)
    if found is None:
        raise UnknownOrder(
            f"There is no order {command.order_id}: it was never placed here, or the table of this "
            "service was changed by hand."
        )
    return found
