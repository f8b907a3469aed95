"""`headrace saga`: look at sagas, and help those on that are stuck."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import datetime, timedelta
from getpass import getuser
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import typer

from headrace.errors import ConfigurationError

from .asking import agreed, require_terminal
from .loading import load_services
from .running import run
from .saga_shapes import add_explore, add_graph

if TYPE_CHECKING:
    from headrace.ports import Ports
    from headrace.saga.item import SagaItem
    from headrace.saga.machine import Action
    from headrace.saga.operating import Answer, Entry
    from headrace.service import Service

saga = typer.Typer(no_args_is_help=True)

ServiceName: TypeAlias = Annotated[
    str,
    typer.Argument(metavar="MODULE:SERVICE", help="Whose sagas, as in services.order.app:order."),
]
KeyArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="KEY", help="Which saga, by the value of its key.")
]
SagaOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--saga", metavar="NAME", help="Which one, if the service has several."),
]
JsonOption: TypeAlias = Annotated[
    bool, typer.Option("--json", help="One JSON object a line, for other programs.")
]
WhyOption: TypeAlias = Annotated[
    str, typer.Option("--why", metavar="TEXT", help="The reason, for the saga's history.")
]
ByOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--by", metavar="WHO", help="Who wants it; by default the user of this system."),
]
PatienceOption: TypeAlias = Annotated[
    float,
    typer.Option(
        metavar="SECONDS", min=0, help="How long a worker is waited for that does what is wanted."
    ),
]
YesOption: TypeAlias = Annotated[bool, typer.Option("--yes", help="Do it without asking.")]

LIMIT: Final = 10_000
PATIENCE: Final = 30.0


@saga.callback()
def commands() -> None:
    """Look at sagas, and help those on that are stuck."""


add_explore(saga)
add_graph(saga)


# --- looking -----------------------------------------------------------------------------


@saga.command("list")
def list_(
    service: ServiceName,
    saga: SagaOption = None,
    stuck: Annotated[
        bool, typer.Option("--stuck", help="Only those that wait for an operator.")
    ] = False,
    limit: Annotated[
        int, typer.Option(metavar="NUMBER", min=1, help="Sagas shown, at most.")
    ] = LIMIT,
    as_json: JsonOption = False,
) -> None:
    """Show one line for each saga that is not over.

    They stand version by version, the oldest first.
    """
    from .saga_views import saga_rows

    rows, now = run(_listed(_service(service), saga, stuck, limit))
    saga_rows(rows[:limit], now, stuck=stuck, as_json=as_json)
    if len(rows) > limit:
        print(f"There are more than these {limit:,}: see --limit.", file=sys.stderr)


async def _listed(
    service: Service, name: str | None, stuck: bool, limit: int
) -> tuple[list[SagaItem], datetime]:
    """One more than the limit, if there are more."""
    from headrace.saga.operating import Sagas

    found: list[SagaItem] = []
    async with _ports() as ports:
        sagas = Sagas(service, ports)
        names = sorted(sagas.by_name) if name is None else [sagas.named(name).name]
        for each in names:
            async with aclosing(sagas.open(each, stuck=stuck)) as items:
                async for item in items:
                    found.append(item)
                    if len(found) > limit:
                        return found, ports.clock.now()
        return found, ports.clock.now()


@saga.command()
def show(
    service: ServiceName, key: KeyArgument, saga: SagaOption = None, as_json: JsonOption = False
) -> None:
    """Show everything about one saga, and what to do next.

    That is its state, its steps and its history.
    """
    from .saga_views import shown_saga

    loaded = _service(service)
    item, history, now = run(_looked_at(loaded, saga, key))
    shown_saga(item, history, loaded, service, now, as_json=as_json)


async def _looked_at(
    service: Service, name: str | None, key: str
) -> tuple[SagaItem, list[Entry], datetime]:
    from headrace.saga.operating import Sagas

    async with _ports() as ports:
        sagas = Sagas(service, ports)
        saga = sagas.named(name).name
        item, history = await sagas.get(saga, key), await sagas.history(saga, key)
        return item, history, ports.clock.now()


# --- helping on --------------------------------------------------------------------------


@saga.command()
def resume(
    service: ServiceName,
    key: KeyArgument,
    saga: SagaOption = None,
    why: WhyOption = "",
    by: ByOption = None,
    patience: PatienceOption = PATIENCE,
    yes: YesOption = False,
) -> None:
    """Try again what a saga is stuck at, once the cause is mended.

    One that is not stuck is woken, if what it waits for is overdue.
    """
    from headrace.saga.machine import Action

    _intervene(service, key, saga, Action.RESUME, why, by, patience, yes)


@saga.command("skip-step")
def skip_step(
    service: ServiceName,
    key: KeyArgument,
    saga: SagaOption = None,
    why: WhyOption = "",
    by: ByOption = None,
    patience: PatienceOption = PATIENCE,
    yes: YesOption = False,
) -> None:
    """Go on without what a saga is stuck at.

    It is for what somebody has seen to by hand.
    """
    from headrace.saga.machine import Action

    _intervene(service, key, saga, Action.SKIP, why, by, patience, yes)


@saga.command()
def compensate(
    service: ServiceName,
    key: KeyArgument,
    saga: SagaOption = None,
    why: WhyOption = "",
    by: ByOption = None,
    patience: PatienceOption = PATIENCE,
    yes: YesOption = False,
) -> None:
    """Have a saga undone, as if a step had failed.

    That is refused once its point of no return has passed.
    """
    from headrace.saga.machine import Action

    _intervene(service, key, saga, Action.COMPENSATE, why, by, patience, yes)


def _intervene(
    service: str,
    key: str,
    saga: str | None,
    action: Action,
    why: str,
    by: str | None,
    patience: float,
    yes: bool,
) -> None:
    if not yes:
        require_terminal()
    who, limit, loaded = by or _user(), timedelta(seconds=patience), _service(service)
    if not run(_done(loaded, service, saga, key, action, who, why, limit, not yes)):
        raise typer.Exit(1)


async def _done(
    service: Service,
    given: str,
    name: str | None,
    key: str,
    action: Action,
    by: str,
    why: str,
    patience: timedelta,
    asks: bool,
) -> bool:
    """Whether it was done, or was not to be."""
    from headrace.saga.operating import Sagas

    from .saga_views import question, standing

    async with _ports() as ports:
        sagas = Sagas(service, ports)
        saga = sagas.named(name).name
        item = await sagas.get(saga, key)
        print(standing(item))
        if asks and not await agreed(question(item, action)):
            print("Nothing was done.")
            return True
        answer = await sagas.intervene(
            saga, key, action, by=by, why=why, step=item.stuck, patience=patience
        )
    return _told(answer, given, saga, key, patience)


def _told(answer: Answer, service: str, saga: str, key: str, patience: timedelta) -> bool:
    from .saga_views import command

    if answer.entry is None:
        print(
            f"No worker has taken it within {patience.total_seconds():g} s: it is in the queue "
            f"{answer.queue} as message {answer.message_id}, and is done as soon as one does. "
            f"{command('show', service, saga, key)} tells. If it never comes, see `headrace dlq "
            f"list {service}`."
        )
        return False
    for change in answer.entry.changes:
        print(f"  {change}")
    if not answer.refused:
        print(f"It is {answer.entry.status}.")
    return not answer.refused


# --- what all of them do -----------------------------------------------------------------


@asynccontextmanager
async def _ports() -> AsyncIterator[Ports]:
    from headrace.aws import client
    from headrace.aws.config import AwsConfig

    async with client.open_ports(AwsConfig.from_environment()) as ports:
        yield ports


def _service(name: str) -> Service:
    (service,) = load_services([name])
    return service


def _user() -> str:
    try:
        return getuser()
    except (OSError, KeyError) as error:
        raise ConfigurationError(
            "Who wants this is not known, as the user of this system has no name: add --by."
        ) from error
