"""What the order service does when something happens."""

from __future__ import annotations

from headrace import Transaction
from schemas.checkout import CheckoutCompleted
from schemas.inventory import StockRejected, StockReserved
from schemas.order import OrderCancelled, OrderConfirmed, OrderPlaced, PlaceOrder
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


@order.on(StockReserved)
async def confirm_order(event: StockReserved, tx: Transaction) -> OrderConfirmed | None:
    found = await _waiting_for_stock(event, tx)
    if found is None:
        return None
    found.confirm()
    tx.put(found)
    return OrderConfirmed(
        order_id=found.order_id,
        customer=found.customer,
        lines=found.lines,
        total=found.total,
        currency=found.currency,
    )


@order.on(StockRejected)
async def cancel_order(event: StockRejected, tx: Transaction) -> OrderCancelled | None:
    found = await _waiting_for_stock(event, tx)
    if found is None:
        return None
    reason = f"We do not have enough of {', '.join(event.skus)}."
    found.cancel(reason)
    tx.put(found)
    return OrderCancelled(
        order_id=found.order_id,
        customer=found.customer,
        total=found.total,
        currency=found.currency,
        reason=reason,
    )


async def _waiting_for_stock(event: StockReserved | StockRejected, tx: Transaction) -> Order | None:
    """The order a reply is for; `None` if the reply is late, because the order has ended."""
    found = await tx.get(Order, event.order_id)
    if found is None:
        raise UnknownOrder(
            f"There is no order {event.order_id}: inventory answered something that was never "
            "placed here, or the table of this service was changed by hand."
        )
    return None if found.has_ended else found
