"""What the soak shows: how far it is while it runs, and tables at its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from services.demo.report import checks_table, numbers, outcomes
from services.soak.feed import Feed
from services.soak.verdict import Verdict

_REDRAW_SECONDS = 0.5
_LINE_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a run is."""

    orders: int
    ended: int
    notified: int
    kills: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.ended} of {self.orders} orders ended, {self.notified} customers notified, "
            f"{self.kills} kills, {self.rate:.0f} orders a second"
        )

    @property
    def rate(self) -> float:
        return self.ended / self.seconds


async def show_progress(standing: Callable[[], Standing], console: Console) -> None:
    """Bars on a terminal, a line now and then elsewhere, until cancelled."""
    if console.is_terminal:
        await _draw(standing, console)
    while True:
        await asyncio.sleep(_LINE_SECONDS)
        console.print(str(standing()), soft_wrap=True, highlight=False)


async def _draw(standing: Callable[[], Standing], console: Console) -> None:
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=40),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[beside]}"),
        console=console,
    )
    with bar:
        ended = bar.add_task("orders ended", total=standing().orders, beside="")
        notified = bar.add_task("customers notified", total=standing().orders, beside="")
        while True:
            now = standing()
            bar.update(ended, completed=now.ended, beside=f"{now.rate:.0f} orders a second")
            bar.update(notified, completed=now.notified, beside=f"{now.kills} kills")
            await asyncio.sleep(_REDRAW_SECONDS)


def show(verdict: Verdict, feed: Feed, kills: dict[str, int], seconds: float, out: Console) -> None:
    for table in (_killed(kills), _outcomes(verdict, feed), checks_table(verdict.checks)):
        out.print()
        out.print(table)
    count = len(feed.sample.orders)
    rate = count / seconds
    out.print()
    out.print(f"{count} orders in {seconds:.1f} s, {rate:.0f} orders a second", highlight=False)


def _killed(kills: dict[str, int]) -> Table:
    return numbers("Killed and started again", kills)


def _outcomes(verdict: Verdict, feed: Feed) -> Table:
    evidence, orders = verdict.evidence, feed.sample.orders
    found, seen, records = evidence.found, evidence.seen, evidence.rows.records
    rows = {
        "orders": len(orders),
        "  by command": sum(order.via == "command" for order in orders),
        "  through the storefront": sum(order.via == "storefront" for order in orders),
        "sent twice": feed.twice,
        **outcomes(found),
        "turns of checkouts": sum(each.turns for each in evidence.rows.checkouts.values()),
        "mails": found.mails.total(),
        "inbox records": len(records),
        "  pending, with their events out": sum(not record.done for record in records),
        "events": len(seen.events),
        "  seen again under their ids": seen.again,
    }
    return numbers("What became of it", rows)
