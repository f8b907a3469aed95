"""`headrace publish`: send events and commands by hand."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from pydantic import BaseModel, ValidationError

from headrace.aws.config import DEFAULT_BUS
from headrace.client import NotSent, send
from headrace.envelope import Identifier
from headrace.errors import CloudError, ConfigurationError, HeadraceError
from headrace.events import Event
from headrace.fields import unknown_fields
from headrace.text import did_you_mean

from .loading import NoModule, load_module, load_package, services_in
from .running import run

if TYPE_CHECKING:
    from headrace.envelope import Outgoing
    from headrace.events import Message, MessageType
    from headrace.ports import Ports

CHUNK: Final = 100
"""How many are under way at a time; they are sent by tens."""
_SHOWN: Final = 10
_MODULE: Final = "schemas"


def publish(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="EVENT_NAME", help="The event or command; with --file, of every line."
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Its fields as JSON; - reads them from stdin, @FILE from a file."),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            help='One JSON object per line: the fields, or without EVENT_NAME {"type": …, '
            '"data": {…}} and, to send a line only once, "id".'
        ),
    ] = None,
    module: Annotated[
        list[str] | None,
        typer.Option(
            "--module",
            "-m",
            metavar="MODULE",
            help=f"Where events are defined; repeatable. By default {_MODULE}.",
        ),
    ] = None,
    bus: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The event bus; commands go to their owner. By default HEADRACE_BUS, or the one "
            f"that the services in these modules have, or {DEFAULT_BUS}.",
        ),
    ] = None,
) -> None:
    """Send events and commands.

    Events go to a bus, commands to the queues of their owners. Everything is validated
    before anything is sent.
    """
    modules = module or [_default_module()]
    for each in modules:
        load_package(each)
    drafts = _drafts(name, data, file, modules)
    run(_send(drafts, _bus(bus, modules, drafts)))


@dataclass(frozen=True, slots=True)
class _Draft:
    """A valid message and, if its sender chose one, its id."""

    message: Message
    id: str | None = None


class _Line(BaseModel):
    """A line of a file that says its own type."""

    type: Identifier
    data: dict[str, Any]
    id: Identifier | None = None


# --- reading ---------------------------------------------------------------------------


def _default_module() -> str:
    """Raises `ConfigurationError` if there is none of that name."""
    try:
        load_module(_MODULE)
    except NoModule as error:
        raise ConfigurationError(
            f"There is no module {_MODULE!r} here, where events are looked for: name the one that "
            "defines them, as in --module shop."
        ) from error
    return _MODULE


def _drafts(
    name: str | None, data: str | None, file: Path | None, modules: Sequence[str]
) -> list[_Draft]:
    if file is not None and data is None:
        return _from_lines(_text(f"@{file}").splitlines(), name, modules)
    if name is None or file is not None:
        raise ConfigurationError(
            "Say what to publish: EVENT_NAME with --data, or --file with one event per line."
        )
    return [_Draft(_message(name, _text(data if data is not None else "{}"), modules))]


def _text(data: str) -> str:
    if data == "-":
        return sys.stdin.read()
    if not data.startswith("@"):
        return data
    try:
        return Path(data[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{data[1:]} cannot be read: {error}.") from error


def _from_lines(lines: Sequence[str], name: str | None, modules: Sequence[str]) -> list[_Draft]:
    drafts: list[_Draft] = []
    wrong: list[str] = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                drafts.append(_from_line(line, name, modules))
            except HeadraceError as error:
                wrong.append(f"line {number}: {error}")
    if wrong:
        more = f"\n… and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise HeadraceError("nothing was sent:\n" + "\n".join(wrong[:_SHOWN]) + more)
    return drafts


def _from_line(line: str, name: str | None, modules: Sequence[str]) -> _Draft:
    if name is not None:
        return _Draft(_message(name, line, modules))
    try:
        found = _Line.model_validate_json(line)
    except ValidationError as error:
        raise HeadraceError(
            f'This is not {{"type": …, "data": {{…}}}} ({_findings(error)}): write it so, or give '
            "EVENT_NAME."
        ) from error
    return _Draft(_message(found.type, json.dumps(found.data), modules), found.id)


def _message(name: str, payload: str, modules: Sequence[str]) -> Message:
    cls = _class(name, modules)
    try:
        message = cls.model_validate_json(payload)
    except ValidationError as error:
        raise HeadraceError(f"This is no valid {name}: {_findings(error)}.") from error
    # Who receives an event passes over what it does not know; who writes one has misspelled it.
    if unknown := unknown_fields(cls, json.loads(payload)):
        raise HeadraceError(f"This is no valid {name}: {' '.join(map(str, unknown[:_SHOWN]))}")
    _refuse_too_large(message)
    return message


def _refuse_too_large(message: Message) -> None:
    """Before anything is sent: with metadata as long as what it will be sent with."""
    from headrace.envelope import root_metadata, seal
    from headrace.outbox import refuse_unsendable

    metadata = root_metadata(message, id="-" * 36, now=datetime.now(UTC))
    refuse_unsendable(seal(message, metadata))


def _findings(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, finding['loc'])) or 'the JSON'}: {finding['msg']}"
        for finding in error.errors(include_url=False, include_context=False)
    )


def _class(name: str, modules: Sequence[str]) -> MessageType:
    from headrace.events import contract_of, registry

    cls = registry.find(name)
    if cls is None:
        hint = did_you_mean(name, [contract_of(each).name for each in registry])
        raise ConfigurationError(
            f"There is no event or command {name!r} in {', '.join(modules)}, where --module says "
            f"to look. {hint}"
        )
    return cls


# --- sending ---------------------------------------------------------------------------


def _bus(given: str | None, modules: Sequence[str], drafts: Sequence[_Draft]) -> str:
    """Where events go. Warns if it had to be guessed, and the guess may be wrong."""
    named = given or os.environ.get("HEADRACE_BUS", "").strip()
    if named:
        return named
    buses = sorted({service.bus for service in services_in(modules)})
    if len(buses) == 1:
        return buses[0]
    if buses and any(isinstance(draft.message, Event) for draft in drafts):
        print(
            f"headrace: no --bus is given, and the services of {', '.join(modules)} are on "
            f"{' and '.join(buses)}: events go to {DEFAULT_BUS}.",
            file=sys.stderr,
        )
    return DEFAULT_BUS


async def _send(drafts: Sequence[_Draft], bus: str) -> None:
    from headrace.aws.client import open_ports
    from headrace.aws.config import AwsConfig

    async with open_ports(AwsConfig.from_environment()) as ports:
        sent = [message async for message in _sent(drafts, bus, ports)]
    if len(sent) == 1:
        place = f"the queue of {sent[0].owner}" if sent[0].owner else f"the bus {bus}"
        print(f"Sent {sent[0].detail_type} {sent[0].id} to {place}.")
    else:
        print(f"Sent {len(sent):,} messages.")


async def _sent(drafts: Sequence[_Draft], bus: str, ports: Ports) -> AsyncIterator[Outgoing]:
    """Send chunk by chunk, behind a progress bar if there is more than one."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    few = len(drafts) <= CHUNK or not console.is_terminal
    with Progress(console=console, disable=few, transient=True) as progress:
        bar = progress.add_task("Sending", total=len(drafts))
        for start in range(0, len(drafts), CHUNK):
            chunk = drafts[start : start + CHUNK]
            ids = [draft.id or str(ports.randomness.uuid()) for draft in chunk]
            try:
                sent = await send(ports, [draft.message for draft in chunk], bus=bus, ids=ids)
            except NotSent as error:
                raise _stopped(error, start, len(drafts)) from error
            progress.advance(bar, len(sent))
            for message in sent:
                yield message


def _stopped(error: NotSent, before: int, total: int) -> HeadraceError:
    """The failure of AWS itself, so that the exit code says so, with how far it came."""
    cause = error.__cause__.__cause__ if error.__cause__ else None
    kind = type(cause) if isinstance(cause, CloudError) else HeadraceError
    return kind(f"{error} {before:,} of {total:,} had been sent before these.")
