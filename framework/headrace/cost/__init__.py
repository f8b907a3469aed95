"""What services cost on AWS: calls and units that are measured, times prices that are dated.

    @work(resources={notification: open_silent_mailer})
    async def orders(aws: Account) -> None:
        await aws.put(Stock(sku="MUG", available=aws.times), service=inventory)
        async for number in aws.units():
            await aws.send(PlaceOrder(order_id=f"order-{number}", …))

`headrace cost MODULE:SERVICE… --work MODULE:orders` runs the services in memory on ports that
count, once as the worker does and once as Lambda does, and prints a bill for a million of these.
"""

from __future__ import annotations

from headrace.cost.account import Account
from headrace.cost.work import Work, work

__all__ = ["Account", "Work", "work"]
