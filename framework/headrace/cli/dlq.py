"""`headrace dlq`: look at dead letters, send them back, let go of them."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import typer

from headrace.errors import ConfigurationError, HeadraceError
from headrace.text import counted

from .asking import agreed, require_terminal
from .loading import load_services
from .running import run

if TYPE_CHECKING:
    from headrace.dlq.blocks import Waiting
    from headrace.dlq.edits import Edits
    from headrace.dlq.groups import Selection
    from headrace.dlq.holding import Holding
    from headrace.dlq.letters import Letter
    from headrace.dlq.reasons import Logged
    from headrace.dlq.records import Standing
    from headrace.dlq.redrive import Plan
    from headrace.ports import Ports
    from headrace.service import Service

dlq = typer.Typer(no_args_is_help=True)

ServiceName: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="MODULE:SERVICE", help="Whose dead letters, as in services.order.app:order."
    ),
]
QueueName: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="One queue of the service; by default all of them."),
]
GroupOption: TypeAlias = Annotated[
    str | None, typer.Option(metavar="FINGERPRINT", help="Only letters of this group.")
]
IdOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--id", help="Only this letter, by its message id or that of its original."),
]
EventOption: TypeAlias = Annotated[
    str | None, typer.Option(metavar="NAME", help="Only letters with this event or command.")
]
HandlerOption: TypeAlias = Annotated[
    str | None, typer.Option(metavar="NAME", help="Only letters that this handler gave up.")
]
LogsOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="headrace's JSON logs, to tell why SQS moved what has no note."
    ),
]
VisibilityOption: TypeAlias = Annotated[
    float,
    typer.Option(
        metavar="SECONDS",
        min=1,
        max=43_200,
        help="How long letters stay hidden if this process is killed.",
    ),
]
LimitOption: TypeAlias = Annotated[
    int, typer.Option(metavar="NUMBER", min=1, help="Letters looked at, at most.")
]
JsonOption: TypeAlias = Annotated[
    bool, typer.Option("--json", help="One JSON object a line, for other programs.")
]
ConsumerOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Groups that wait for this handler, also if the code no longer has it; by default for "
        "those that it has.",
    ),
]
YesOption: TypeAlias = Annotated[bool, typer.Option("--yes", help="Do it without asking.")]

VISIBILITY: Final = 60.0
LIMIT: Final = 10_000


@dlq.callback()
def commands() -> None:
    """Look at dead letters, send them back, or let go of them."""


# --- looking -----------------------------------------------------------------------------


@dlq.command("list")
def list_(
    service: ServiceName,
    queue: QueueName = None,
    group: GroupOption = None,
    id: IdOption = None,
    event: EventOption = None,
    handler: HandlerOption = None,
    logs: LogsOption = None,
    visibility: VisibilityOption = VISIBILITY,
    limit: LimitOption = LIMIT,
    as_json: JsonOption = False,
) -> None:
    """Show one line for each letter."""
    from .dlq_views import letter_rows

    selection = _selection(group, id, event, handler)
    letters = run(_looked_at(_service(service), queue, logs, visibility, limit))
    if chosen := _chosen(letters, selection, as_json=as_json):
        letter_rows(chosen, as_json=as_json)


@dlq.command("group")
def group_(
    service: ServiceName,
    queue: QueueName = None,
    group: GroupOption = None,
    id: IdOption = None,
    event: EventOption = None,
    handler: HandlerOption = None,
    logs: LogsOption = None,
    visibility: VisibilityOption = VISIBILITY,
    limit: LimitOption = LIMIT,
    as_json: JsonOption = False,
) -> None:
    """Show what letters have in common.

    That is the exception and where it was raised, the event, and the handler.
    """
    from headrace.dlq.groups import grouped

    from .dlq_views import group_rows

    selection = _selection(group, id, event, handler)
    letters = run(_looked_at(_service(service), queue, logs, visibility, limit))
    if chosen := _chosen(letters, selection, as_json=as_json):
        group_rows(grouped(chosen), as_json=as_json)


@dlq.command()
def show(
    service: ServiceName,
    id: Annotated[
        str,
        typer.Argument(help="The letter, by its message id or the original's, or how one begins."),
    ],
    queue: QueueName = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="The body as it came, with its sensitive fields.")
    ] = False,
    logs: LogsOption = None,
    visibility: VisibilityOption = VISIBILITY,
    limit: LimitOption = LIMIT,
    as_json: JsonOption = False,
) -> None:
    """Show everything about one letter, and what to do next."""
    from headrace.dlq.groups import beginning

    from .dlq_views import shown_letter

    loaded = _service(service)
    letters = beginning(run(_looked_at(loaded, queue, logs, visibility, limit)), id)
    if not letters:
        raise HeadraceError(
            f"There is no letter {id!r} to be seen: `headrace dlq list {service}` shows those that "
            "are there and not hidden."
        )
    if len(originals := sorted({letter.original_id for letter in letters})) > 1:
        raise HeadraceError(
            f"Several letters begin with {id!r}: {', '.join(originals)}. Give more of the id."
        )
    standings = run(_standings(loaded, letters))
    for letter in letters:
        shown_letter(letter, standings[letter.id], service, raw=raw, as_json=as_json)


# --- sending back ------------------------------------------------------------------------


@dlq.command()
def redrive(
    service: ServiceName,
    queue: QueueName = None,
    group: GroupOption = None,
    id: IdOption = None,
    event: EventOption = None,
    handler: HandlerOption = None,
    settings: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="PATH=JSON",
            help="Change a field of the event first, as in customer.email='\"a@b.c\"'; repeatable.",
        ),
    ] = [],  # noqa: B006 - typer reads the default and never changes it
    body: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Send this body instead, of one letter.")
    ] = None,
    step: Annotated[
        int, typer.Option(metavar="NUMBER", min=1, help="Letters sent back at a time, at most.")
    ] = 500,
    patience: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            min=0,
            help="How long the queue must be empty before a letter that no record tells of counts "
            "as handled.",
        ),
    ] = 30.0,
    timeout: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=1, help="How long a step is waited for, at most."),
    ] = 900.0,
    everything: Annotated[
        bool,
        typer.Option(
            "--all", help="Let SQS move all letters at once, without a canary and a look at any."
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be sent back, and send nothing.")
    ] = False,
    yes: YesOption = False,
    visibility: VisibilityOption = VISIBILITY,
    limit: LimitOption = LIMIT,
) -> None:
    """Send letters back to their queue: one first, then more and more.

    Each step waits for the one before it, and the first letter that fails again ends the run
    with 1. It can be interrupted at any time: nothing is lost, and running it again goes on.
    """
    loaded = _service(service)
    selection, edits = _selection(group, id, event, handler), _edits(settings, body)
    if everything and (edits or not selection.is_everything):
        raise ConfigurationError(
            "--all lets SQS move what is there as it is: leave out --all, or what selects and "
            "changes letters."
        )
    plans = [
        _plan(source, selection, edits, step, patience, timeout, visibility, limit)
        for source in _queues(loaded, queue)
    ]
    asks = not yes and not dry_run
    looked = _Looked(selection)
    if not run(_redrive(loaded, plans, looked, everything=everything, dry_run=dry_run, asks=asks)):
        raise typer.Exit(1)


async def _redrive(
    service: Service,
    plans: Sequence[Plan],
    looked: _Looked,
    *,
    everything: bool,
    dry_run: bool,
    asks: bool,
) -> bool:
    """Whether all went well. What one queue has to do with is no matter to the others."""
    good = True
    async with _ports() as ports:
        for plan in plans:
            moved = await _moved(plan, dry_run, asks) if everything else None
            if moved is None:
                moved = await _redriven(service, ports, plan, dry_run, asks, looked)
            else:
                looked.found = True
            good = good and moved
    return looked.ends_well() and good


@dataclass(slots=True)
class _Looked:
    """The letters of all queues that were looked at, and whether any of them was meant. Some may
    be `hidden`, as after a run that was killed."""

    selection: Selection
    seen: list[Letter] = field(default_factory=list)
    found: bool = False
    hidden: bool = False

    def add(self, seen: Sequence[Letter], meant: Sequence[Letter], held: Holding) -> None:
        self.seen += seen
        self.found = self.found or bool(meant)
        self.hidden = self.hidden or held.elsewhere > 0

    def ends_well(self) -> bool:
        """Says so if nothing was found. That is well where there is nothing at all, or where what
        is meant may be hidden."""
        if self.found:
            return True
        well = self.hidden or not self.seen
        print(self.selection.why_none(self.seen), file=sys.stdout if well else sys.stderr)
        return well


async def _redriven(
    service: Service, ports: Ports, plan: Plan, dry_run: bool, asks: bool, looked: _Looked
) -> bool:
    from headrace.dlq.groups import grouped
    from headrace.dlq.redrive import Report, redriving

    from .dlq_views import Lines, Progress, group_rows, show_summary

    with Progress() if sys.stdout.isatty() else Lines() as watcher:
        async with redriving(service, ports, plan, watcher=watcher) as redrive:
            letters = await redrive.selected()
            _say_what_is_hidden(redrive.holding)
            looked.add(redrive.seen, letters, redrive.holding)
            if letters:
                watcher.clear()
                group_rows(grouped(letters), as_json=False)
            question = f"Send {_counted(letters)} back to {plan.source}?"
            if dry_run:
                if letters:
                    print(f"{_counted(letters)} would be sent back to {plan.source}; nothing was.")
                return True
            if letters and asks and not await agreed(question):
                print("Nothing was sent back.")
                return True
            watcher.begin(len(letters))
            # Without letters too: what is parked may wait for one that was dealt with before.
            report = await redrive.run()
    if letters or report != Report():
        show_summary(report, plan)
    return report.succeeded


async def _moved(plan: Plan, dry_run: bool, asks: bool) -> bool | None:
    """Whether SQS moved all letters; `None` if it cannot."""
    from headrace.aws.config import AwsConfig
    from headrace.aws.dead_letters import open_moves
    from headrace.dlq.moving import COMPLETED, Move, move_all
    from headrace.topology.model import dead_letter_queue

    dead_letters = dead_letter_queue(plan.source)
    if dry_run:
        print(f"SQS would move all of {dead_letters} to {plan.source}; nothing was moved.")
        return True
    question = f"Move all of {dead_letters} to {plan.source}, without a canary?"
    if asks and not await agreed(question):
        print("Nothing was moved.")
        return True

    def told(move: Move) -> None:
        of = "" if move.total is None else f" of about {move.total:,}"
        print(f"{move.status.lower()}: about {move.moved:,}{of} moved", flush=True)

    async with open_moves(AwsConfig.from_environment()) as moves:
        move = await move_all(moves, dead_letters, plan.source, told)
    if move is None:
        print("This SQS does not move messages by itself, so they are sent back step by step.")
        return None
    if move.status != COMPLETED:
        print(f"The move ended as {move.status}: {move.failure or 'SQS does not say why'}.")
    return move.status == COMPLETED


def _plan(
    source: str,
    selection: Selection,
    edits: Edits,
    step: int,
    patience: float,
    timeout: float,
    visibility: float,
    limit: int,
) -> Plan:
    from uuid import uuid4

    from headrace.dlq.redrive import Plan

    return Plan(
        source=source,
        run=uuid4().hex[:12],
        selection=selection,
        edits=edits,
        most=step,
        patience=timedelta(seconds=patience),
        limit=timedelta(seconds=timeout),
        visibility=timedelta(seconds=visibility),
        held=limit,
    )


def _edits(settings: Sequence[str], body: Path | None) -> Edits:
    from headrace.dlq.edits import Edits, Setting

    parsed = tuple(map(Setting.parse, settings))
    return Edits(parsed, None if body is None else _text(body))


# --- letting go --------------------------------------------------------------------------


@dlq.command()
def drop(
    service: ServiceName,
    queue: QueueName = None,
    group: GroupOption = None,
    id: IdOption = None,
    event: EventOption = None,
    handler: HandlerOption = None,
    to: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where the letters are kept, one JSON object a line."),
    ] = None,
    yes: YesOption = False,
    visibility: VisibilityOption = VISIBILITY,
    limit: LimitOption = LIMIT,
) -> None:
    """Delete letters, and keep them in a file.

    What they have caused and is not out is sent first.
    """
    selection = _selection(group, id, event, handler)
    if selection.is_everything:
        raise ConfigurationError(
            "Say which letters are not wanted any more: --group, --id, --event or --handler."
        )
    loaded = _service(service)
    queues = _queues(loaded, queue)
    file = to or Path(f"dropped-{loaded.name}.jsonl")
    if not run(_drop(loaded, queues, selection, file, not yes, visibility, limit)):
        raise typer.Exit(1)


async def _drop(
    service: Service,
    queues: Sequence[str],
    selection: Selection,
    file: Path,
    asks: bool,
    visibility: float,
    limit: int,
) -> bool:
    from headrace.dlq.drop import dropping
    from headrace.dlq.groups import grouped

    from .dlq_views import group_rows

    good, time, looked = True, timedelta(seconds=visibility), _Looked(selection)
    async with _ports() as ports:
        for source in queues:
            async with dropping(
                service, ports, source, selection, visibility=time, most=limit, say=print
            ) as drop:
                letters = await drop.selected()
                _say_what_is_hidden(drop.holding)
                looked.add(drop.seen, letters, drop.holding)
                if not letters:
                    continue
                group_rows(grouped(letters), as_json=False)
                question = f"Drop {_counted(letters)} of {source}, and keep them in {file}?"
                if asks and not await agreed(question):
                    print("Nothing was dropped.")
                    continue
                dropped = await drop.run(file)
            sent = counted(dropped.sent, "message")
            sent_first = f"First, {sent} that they had caused went out. " if dropped.sent else ""
            where = "It is" if len(dropped.letters) == 1 else "They are"
            print(f"Dropped {_counted(dropped.letters)}. {sent_first}{where} in {file}.")
            for letter, why in dropped.kept:
                print(f"{letter.original_id} stays: {why}")
            good = good and not dropped.kept
    return looked.ends_well() and good


# --- groups that wait --------------------------------------------------------------------


@dlq.command()
def blocked(
    service: ServiceName,
    consumer: ConsumerOption = None,
    visibility: VisibilityOption = VISIBILITY,
    limit: LimitOption = LIMIT,
    as_json: JsonOption = False,
) -> None:
    """Show the message groups that wait for a letter.

    With what they wait for, and what to run next.
    """
    from .dlq_views import blocked_rows

    waiting = run(_blocked(_service(service), consumer, visibility, limit))
    blocked_rows(waiting, service, as_json=as_json)


async def _blocked(
    service: Service, consumer: str | None, visibility: float, limit: int
) -> list[Waiting]:
    from headrace.dlq.blocks import Blocks

    time = timedelta(seconds=visibility)
    async with _ports() as ports:
        return await Blocks(service, ports, visibility=time, most=limit).of(consumer)


@dlq.command()
def free(
    service: ServiceName,
    consumer: Annotated[
        str, typer.Option(metavar="NAME", help="The handler that the group waits for.")
    ],
    group: Annotated[str, typer.Option(metavar="GROUP", help="The message group.")],
    queue: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Where the messages go back to; by default the handler's queue."
        ),
    ] = None,
    anyway: Annotated[
        bool,
        typer.Option("--anyway", help="Also while the letter it waits for may still be there."),
    ] = False,
    yes: YesOption = False,
    visibility: VisibilityOption = VISIBILITY,
    limit: LimitOption = LIMIT,
) -> None:
    """Let a message group go on whose letter is gone.

    It goes on without the message that it waits for. What waits is sent back in order, as when the
    letter is dropped. A worker has to run.
    """
    loaded = _service(service)
    if queue is not None:
        _queues(loaded, queue)
    if not yes:
        require_terminal()
    if not run(_free(loaded, consumer, group, queue, anyway, not yes, visibility, limit)):
        raise typer.Exit(1)


async def _free(
    service: Service,
    consumer: str,
    group: str,
    queue: str | None,
    anyway: bool,
    asks: bool,
    visibility: float,
    limit: int,
) -> bool:
    """Whether the group is free, or was not to be."""
    from headrace.dlq.blocks import Blocks
    from headrace.dlq.parked import outcome_of
    from headrace.yard import Replayed

    async with _ports() as ports:
        blocks = Blocks(service, ports, visibility=timedelta(seconds=visibility), most=limit)
        waiting = await blocks.one(consumer, group)
        blocks.refuse(waiting, anyway=anyway, queue=queue)
        block = waiting.block
        print(f"{block.group} waits for message {block.message_id}, event {block.event_id}:")
        print(f"  {block.reason}")
        if (there := await blocks.in_the_queue(waiting)) and not waiting.is_settled:
            print(
                f"{waiting.queue} holds {counted(there, 'message')}: if that one is among them, "
                "sent back or not a dead letter yet, it comes behind those that go on now."
            )
        question = f"Let {counted(block.waiting, 'message')} go on without it?"
        if asks and not await agreed(question):
            print("Nothing was done.")
            return True
        replayed = await blocks.free(waiting, anyway=anyway, queue=queue)
    print(outcome_of(block, replayed))
    return replayed is Replayed.FREE


# --- what all of them do -----------------------------------------------------------------


async def _looked_at(
    service: Service,
    queue: str | None,
    logs: Path | None,
    visibility: float,
    limit: int,
) -> list[Letter]:
    from headrace.dlq.holding import holding
    from headrace.dlq.reading import Reader
    from headrace.topology.model import dead_letter_queue

    said = _logged(logs)
    found: list[Letter] = []
    async with _ports() as ports:
        for source in _queues(service, queue):
            async with holding(
                ports.queues,
                dead_letter_queue(source),
                visibility=timedelta(seconds=visibility),
                most=limit,
            ) as held:
                deliveries = await held.fill()
                _say_what_is_hidden(held)
                found += await Reader(service, source, ports, said).read(deliveries)
    return found


def _chosen(letters: Sequence[Letter], selection: Selection, *, as_json: bool) -> list[Letter]:
    """The letters that are meant. Says so if there are none: beside the output, where that is for
    another program."""
    chosen = [letter for letter in letters if selection.takes(letter)]
    if not chosen:
        print(selection.why_none(letters), file=sys.stderr if as_json else sys.stdout)
    return chosen


async def _standings(service: Service, letters: Sequence[Letter]) -> dict[str, Standing]:
    from headrace.dlq.records import Records

    async with _ports() as ports:
        return await Records(service, ports).of(letters)


@asynccontextmanager
async def _ports() -> AsyncIterator[Ports]:
    from headrace.aws import client
    from headrace.aws.config import AwsConfig

    async with client.open_ports(AwsConfig.from_environment()) as ports:
        yield ports


def _service(name: str) -> Service:
    (service,) = load_services([name])
    return service


def _queues(service: Service, queue: str | None) -> list[str]:
    if queue is None or queue in service.queues:
        return list(service.queues) if queue is None else [queue]
    raise ConfigurationError(
        f"{service.name} has no queue {queue!r}: it reads {', '.join(service.queues) or 'none'}."
    )


def _selection(
    group: str | None, id: str | None, event: str | None, handler: str | None
) -> Selection:
    from headrace.dlq.groups import Selection

    return Selection(group, id, event, handler)


def _logged(file: Path | None) -> dict[str, Logged]:
    from headrace.dlq.reasons import read_logs

    return {} if file is None else read_logs(_text(file).splitlines())


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file} cannot be read: {error}.") from error


def _counted(letters: Sequence[object]) -> str:
    return counted(len(letters), "letter")


def _more(letters: int) -> str:
    return f"{counted(letters, 'more letter')} {'is' if letters == 1 else 'are'}"


def _say_what_is_hidden(held: Holding) -> None:
    """On standard error, as it is not part of what was asked for."""
    if held.elsewhere:
        print(
            f"{_more(held.elsewhere)} hidden in {held.queue} by somebody else, or by a run that "
            "was killed, and will be seen again.",
            file=sys.stderr,
        )
    if held.full:
        print(
            f"{held.queue} may hold more than was looked at, {counted(len(held.held), 'letter')}.",
            file=sys.stderr,
        )
    if held.behind:
        print(
            f"SQS shows a few letters of a message group at a time: {held.queue} holds about "
            f"{held.behind:,} more behind these.",
            file=sys.stderr,
        )
