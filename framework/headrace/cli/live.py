"""What `headrace dev` shows: a table of counts above the last events, or lines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

import orjson
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from headrace.envelope import Outgoing
from headrace.observe.tally import Counts, Tally
from headrace.outcome import Ack, DeadLetter, Outcome, Retry
from headrace.ports import Delivery

_ALARMING = {"retried": "yellow", "dead_letters": "bold red"}


def view(tally: Tally) -> RenderableType:
    """The table and the log, as they are now. Called from the thread that draws: it reads
    copies, as deliveries go on meanwhile."""
    columns = [field.name for field in fields(Counts)]
    table = Table(box=SIMPLE_HEAD, header_style="dim")
    table.add_column("service", style="bold")
    for column in columns:
        table.add_column(column.replace("_", " "), justify="right")
    for name, counts in list(tally.services.items()):
        table.add_row(name, *(_number(column, getattr(counts, column)) for column in columns))
    log = Text("\n".join(list(tally.recent)) or "Nothing yet.", overflow="ellipsis", no_wrap=True)
    return Group(table, Panel(log, title="last events", title_align="left", border_style="dim"))


def _number(column: str, number: int) -> Text:
    style = "dim" if number == 0 else _ALARMING.get(column, "")
    return Text(f"{number:,}", style=style)


class Announced(Tally):
    """A tally that also says each thing in a line."""

    def settled(self, service: str, delivery: Delivery, outcome: Outcome) -> None:
        super().settled(service, delivery, outcome)
        print(f"{service}: {_type_of(delivery)} {_fate(outcome)}", flush=True)

    def sent(self, service: str, outgoing: Outgoing) -> None:
        super().sent(service, outgoing)
        print(f"{service}: sent {outgoing.detail_type} {outgoing.id}", flush=True)

    def summary(self) -> Iterator[str]:
        for name, counts in self.services.items():
            yield f"{name}: {', '.join(_said(counts))}"


def _said(counts: Counts) -> Iterator[str]:
    for field in fields(counts):
        yield f"{getattr(counts, field.name):,} {field.name.replace('_', ' ')}"


def _type_of(delivery: Delivery) -> str:
    try:
        body = orjson.loads(delivery.body)
    except orjson.JSONDecodeError:
        return "something"
    return str(body.get("detail-type", "something")) if isinstance(body, dict) else "something"


def _fate(outcome: Outcome) -> str:
    match outcome:
        case Ack(parked=True):
            return "is parked behind another of its group"
        case Ack(duplicate=True):
            return "is a duplicate"
        case Ack():
            return "is done"
        case Retry(reason=reason):
            return f"comes again: {reason}"
        case DeadLetter(reason=reason):
            return f"goes to the dead letters: {reason}"
