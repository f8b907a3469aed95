"""`headrace publish`: send events and commands by hand."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from pydantic import BaseModel, ValidationError

from headrace.client import NotSent, send
from headrace.envelope import Identifier
from headrace.errors import CloudError, ConfigurationError, HeadraceError

from .loading import load_package
from .running import run

if TYPE_CHECKING:
    from headrace.envelope import Outgoing
    from headrace.events import Message, MessageType
    from headrace.ports import Ports

CHUNK: Final = 100
"""How many are under way at a time; they are sent by tens."""
_SHOWN: Final = 10


def publish(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[EVENT_NAME]", help="The event or command; with --file, of every line."
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
        list[str], typer.Option("--module", "-m", help="Where events are defined; repeatable.")
    ] = ["schemas"],  # noqa: B006 - typer reads the default and never changes it
    bus: Annotated[str, typer.Option(help="The event bus; commands go to their owner.")] = (
        "default"
    ),
) -> None:
    """Send events and commands.

    Events go to a bus, commands to the queues of their owners. Everything is validated
    before anything is sent.
    """
    for each in module:
        load_package(each)
    run(_send(_drafts(name, data, file), bus))


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


def _drafts(name: str | None, data: str | None, file: Path | None) -> list[_Draft]:
    if file is not None and data is None:
        return _from_lines(_text(f"@{file}").splitlines(), name)
    if name is None or file is not None:
        raise ConfigurationError(
            "Say what to publish: EVENT_NAME with --data, or --file with one event per line."
        )
    return [_Draft(_message(name, _text(data if data is not None else "{}")))]


def _text(data: str) -> str:
    if data == "-":
        return sys.stdin.read()
    if not data.startswith("@"):
        return data
    try:
        return Path(data[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{data[1:]} cannot be read: {error}.") from error


def _from_lines(lines: Sequence[str], name: str | None) -> list[_Draft]:
    drafts: list[_Draft] = []
    wrong: list[str] = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                drafts.append(_from_line(line, name))
            except HeadraceError as error:
                wrong.append(f"line {number}: {error}")
    if wrong:
        more = f"\n… and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise HeadraceError("nothing was sent:\n" + "\n".join(wrong[:_SHOWN]) + more)
    return drafts


def _from_line(line: str, name: str | None) -> _Draft:
    if name is not None:
        return _Draft(_message(name, line))
    try:
        found = _Line.model_validate_json(line)
    except ValidationError as error:
        raise HeadraceError(
            f'This is not {{"type": …, "data": {{…}}}} ({_findings(error)}): write it so, or give '
            "EVENT_NAME."
        ) from error
    return _Draft(_message(found.type, json.dumps(found.data)), found.id)


def _message(name: str, payload: str) -> Message:
    cls = _class(name)
    try:
        message = cls.model_validate_json(payload)
    except ValidationError as error:
        raise HeadraceError(f"This is no valid {name}: {_findings(error)}.") from error
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


def _class(name: str) -> MessageType:
    from headrace.events import contract_of, registry

    cls = registry.find(name)
    if cls is None:
        known = [contract_of(each).name for each in registry]
        similar = get_close_matches(name, known)
        hint = f"Did you mean {' or '.join(similar)}?" if similar else f"There are {_some(known)}."
        raise ConfigurationError(
            f"There is no event or command {name!r} in the modules that --module names. {hint}"
        )
    return cls


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more if names else "none"


# --- sending ---------------------------------------------------------------------------


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
