"""What the demo shows: a bar while it runs, and tables at its end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from services.demo.found import Found, Why
from services.demo.script import Script
from services.demo.verdict import Check, Verdict
from services.demo.watch import Watch
from services.order.local_gateway import PaymentStatus
from services.order.model import OrderStatus


@contextmanager
def progress_of(watch: Watch, script: Script, console: Console) -> Iterator[None]:
    """A bar for each step of the orders, redrawn as they take it."""
    total = len(script.order_ids)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=40),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )
    steps = {
        "orders placed": watch.placed,
        "orders ended": watch.ended,
        "customers notified": watch.notified,
    }
    with bar:
        rows = {name: bar.add_task(name, total=total) for name in steps}

        def redraw() -> None:
            for name, events in steps.items():
                bar.update(rows[name], completed=len(events))

        watch.on_change = redraw
        yield


def show(verdict: Verdict, watch: Watch, script: Script, seconds: float, console: Console) -> None:
    console.print()
    for table in (
        _work(watch),
        _outcomes(verdict, script),
        _letters(verdict),
        checks_table(verdict.checks),
    ):
        console.print(table)
        console.print()
    count = len(script.order_ids)
    console.print(f"{count} orders in {seconds:.1f} s, {count / seconds:.0f} orders a second")


def _work(watch: Watch) -> Table:
    table = titled_table("What the services did")
    table.add_column("service")
    for name in ("received", "done", "duplicates", "retried", "dead", "published"):
        table.add_column(name, justify="right")
    for service, counts in sorted(watch.tally.services.items()):
        numbers = (
            counts.received,
            counts.done,
            counts.duplicates,
            counts.retried,
            counts.dead_letters,
            counts.published,
        )
        table.add_row(service, *(f"{number:,}" for number in numbers))
    return table


def _outcomes(verdict: Verdict, script: Script) -> Table:
    found = verdict.found
    rows = {
        "orders": len(found.orders),
        "  by command": len(script.commands),
        "  through the storefront": len(script.checkouts),
        **outcomes(found),
        "mails": found.mails.total(),
        "pieces in stock before": sum(script.sample.stock.values()),
        "  taken for confirmed orders": found.taken,
        "  in stock now": found.pieces,
    }
    return numbers("What became of it", rows)


def outcomes(found: Found) -> dict[str, int]:
    """How orders ended, and the money for them."""
    confirmed = found.with_status(OrderStatus.CONFIRMED)
    return {
        "confirmed": len(confirmed),
        "  paid": sum(order.total > 0 for order in confirmed),
        "  free": sum(not order.total for order in confirmed),
        "cancelled": len(found.with_status(OrderStatus.CANCELLED)),
        **{f"  {why}": found.cancelled(why) for why in Why},
        "payments, as the bank has them": len(found.payments),
        **{f"  {status}": found.paid(status) for status in PaymentStatus if found.paid(status)},
    }


def _letters(verdict: Verdict) -> Table:
    table = titled_table("Dead letters")
    table.add_column("queue")
    table.add_column("reason", overflow="fold")
    table.add_column("message", overflow="ellipsis", no_wrap=True, max_width=28)
    for letter in verdict.found.letters:
        # Text, because what stands in a message must not be read as markup.
        table.add_row(letter.queue, Text(letter.reason), Text(letter.body.split("\n")[0]))
    return table


def checks_table(checks: Sequence[Check]) -> Table:
    table = titled_table("Checked", show_header=False)
    for check in checks:
        mark = Text("wrong", style="bold red") if check.wrong else Text("ok", style="green")
        table.add_row(mark, Text(check.name))
    return table


def numbers(title: str, rows: Mapping[str, int]) -> Table:
    """A table of counts; those that are part of another are indented."""
    table = titled_table(title, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, number in rows.items():
        table.add_row(name, f"{number:,}")
    return table


def titled_table(title: str, *, show_header: bool = True) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD if show_header else None,
        show_header=show_header,
    )
